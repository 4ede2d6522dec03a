//! The files of sentence-transformers beside a model: what says how vectors are made of texts.

/// Files at the top of a repository.
const AT_TOP: [&str; 3] = ["modules.json", "config_sentence_transformers.json", "vocab.txt"];
/// Files of a module's folder.
const OF_MODULES: [&str; 3] = ["config.json", "model.safetensors", "pytorch_model.bin"];

/// Whether a file of a repository is one of them; of a module's weights those that are read.
pub(crate) fn is_part(name: &str, names: &[String]) -> bool {
    let Some((folder, file)) = name.split_once('/') else {
        let settings = name.starts_with("sentence_") && name.ends_with("_config.json");
        return settings || AT_TOP.contains(&name);
    };
    // `1_Pooling`, `2_Dense`, …
    let numbered = folder.split_once('_').is_some_and(|(number, kind)| {
        !kind.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let has_modules = names.iter().any(|name| name == "modules.json");
    let better = format!("{folder}/model.safetensors");
    let is_pickle_beside = file == "pytorch_model.bin" && names.contains(&better);
    numbered && has_modules && OF_MODULES.contains(&file) && !is_pickle_beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_their_folders() {
        let all = [
            "modules.json",
            "config_sentence_transformers.json",
            "sentence_bert_config.json",
            "vocab.txt",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "3_Dense/pytorch_model.bin",
        ];
        let others = ["2_Dense/pytorch_model.bin", "onnx/model.onnx", "openvino/config.json", "1_Pooling/x/config.json"];
        let names: Vec<String> = all.iter().chain(&others).map(|name| (*name).to_owned()).collect();
        let taken: Vec<&String> = names.iter().filter(|name| is_part(name, &names)).collect();
        assert_eq!(taken, all);
    }
}
