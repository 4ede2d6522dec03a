//! `docs/families.md` says what the data and the fixtures say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use aerostat_arch::{FAMILIES, Family, Refused, TOWERS, describe};
use aerostat_checkpoint::Checkpoint;
use aerostat_testkit::{encoders, fixtures};

const HEAD: &str = "# Model families

Made from `crates/aerostat-arch/src/families/*.rs` and `fixtures/` by a test, which says how to renew it.

Every family is compiled to one program of ops. *Checked by* names the fixtures: tiny models whose logits and greedy tokens
(of encoders, vectors) are those of transformers TRANSFORMERS; a G marks those that are checked as GGUF files too, in llama.cpp's layout.

| family | what it is | Hugging Face | GGUF | checked by |
|---|---|---|---|---|
";

const APART: &str = "
Their classes in transformers have heads of their own, which leave out what the text model's does to logits (`logit_scale`,
`logits_scaling`, `final_logit_softcapping`; those of Gemma 3n and 4 alone cap them), and so it is here.

## Where answers differ from transformers
- Phi 3, 3.5, 4-mini and 3.5-MoE with LongRoPE, where an answer passes `original_max_position_embeddings`: transformers drops its
  cache and computes the whole text anew with the factors of long texts. Here what was computed stays, and later positions
  take the long factors. Prompts that are longer than that from the start are the same in both.
";

#[test]
fn the_list_of_families_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let want = list(&root);
    let found = std::fs::read_to_string(root.join("docs/families.md")).unwrap_or_default();
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("families.md");
    std::fs::write(&made, &want).unwrap();
    assert!(
        found == want,
        "docs/families.md is out of date; renew it: cp {} docs/families.md",
        made.display()
    );
}

fn list(root: &Path) -> String {
    let checks = checks();
    let mut text = HEAD.replace("TRANSFORMERS", &transformers(root));
    for family in FAMILIES {
        let Some(fixtures) = checks.get(family.name) else { panic!("{} has no fixture", family.name) };
        let source = root.join(format!("crates/aerostat-arch/src/families/{}.rs", family.name));
        let source = std::fs::read_to_string(&source).unwrap();
        let about =
            source.lines().next().unwrap_or_default().trim_start_matches("//! ").trim_end_matches('.');
        let code = |names: &[&str]| match names {
            [] => "–".to_owned(),
            names => format!("`{}`", names.join("`, `")),
        };
        let (own, gguf) = (code(family.architectures), code(family.gguf));
        writeln!(text, "| {} | {about} | {own} | {gguf} | {} |", family.name, fixtures.join(", ")).unwrap();
    }
    text.push_str("\n## Text towers\nOf checkpoints with several towers, the text tower runs alone. By `model_type`, with ");
    text.push_str("the family of the text tower, unless the configuration names another:\n");
    for (whole, tower) in TOWERS {
        let family = FAMILIES.iter().find(|family| family.model_types.contains(tower));
        writeln!(text, "- {whole}: {}", family.unwrap_or_else(|| panic!("no family of {tower}")).name)
            .unwrap();
    }
    text.push_str(APART);
    text.push_str("\n## Refused by name\n");
    for (family, refused) in FAMILIES.iter().flat_map(|f| f.refused.iter().map(move |r| (f, r))) {
        writeln!(text, "- {}", refusal(family, *refused)).unwrap();
    }
    text
}

fn refusal(family: &Family, refused: Refused) -> String {
    let name = family.name;
    match refused {
        Refused::Flag(key, value) => format!("{name}: `{key}` {value}"),
        Refused::Above(key, most) => format!("{name}: `{key}` above {most}"),
        Refused::Given(key) => format!("{name}: `{key}`"),
    }
}

/// The fixtures of each family.
fn checks() -> BTreeMap<&'static str, Vec<String>> {
    let mut checks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for fixture in fixtures() {
        let spec = describe(&Checkpoint::open(&fixture.path).unwrap()).unwrap();
        match fixture.name.split_once('/') {
            None => checks.entry(spec.family).or_default().push(format!("`{}`", fixture.name)),
            // A twin stands with its folder, whatever family its architecture is looked up as.
            Some((folder, _)) => {
                let (own, marked) = (format!("`{folder}`"), format!("`{folder}` G"));
                match checks.values_mut().flatten().find(|name| **name == own || **name == marked) {
                    Some(name) => *name = marked,
                    None => checks.entry(spec.family).or_default().push(marked),
                }
            }
        }
    }
    for (folder, _) in encoders() {
        let spec = describe(&Checkpoint::open(&folder).unwrap()).unwrap();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        checks.entry(spec.family).or_default().push(format!("`{name}`"));
    }
    checks
}

fn transformers(root: &Path) -> String {
    let requirements = std::fs::read_to_string(root.join("oracle/requirements.txt")).unwrap();
    let version = requirements.lines().find_map(|line| line.strip_prefix("transformers=="));
    version.unwrap_or("of unknown version").to_owned()
}
