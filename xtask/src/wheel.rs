//! The Python package: its wheel, and its tests.
//!
//! A wheel is the extension module that maturin builds, the Python files beside it, and the command, which pip puts on the
//! PATH. The tests need no wheel: the extension module that `cargo build` makes is put beside the Python files.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::check::{PARQUET, command as cargo, without_own_variables};

/// Where the package lies.
const PACKAGE: &str = "crates/aerostat-python";
/// What the tests need, beside the Python that there is: for building, for checking, and libraries that tables, data sets,
/// schemas and the notebook come from. torch is too large.
const TEST_REQUIREMENTS: &[&str] = &[
    "maturin>=1.16,<2",
    "mypy",
    "pytest",
    "numpy",
    "openai",
    "pandas",
    "polars",
    "pyarrow",
    "datasets",
    "pydantic",
    "nbclient",
    "ipykernel",
];

/// How to build the wheel.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder that the wheel is put in.
    #[arg(long, value_name = "DIR", default_value = "target/wheels")]
    out: PathBuf,
    /// Build for every Linux with glibc 2.28 or newer, with zig as the linker: needs `pip install maturin ziglang
    /// cargo-zigbuild`.
    #[arg(long)]
    zig: bool,
    /// Build without optimisation, and the command without Parquet, as the tests build it: for looking at the wheel, not for
    /// using it.
    #[arg(long)]
    dev: bool,
    /// The Python that has maturin.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// How to test the package.
#[derive(clap::Args)]
pub(crate) struct TestOptions {
    /// A Python that has numpy, pytest and mypy, and for tests of tables pandas, polars and pyarrow; without it, a virtual
    /// environment is made in target/python-venv and these are installed into it. With --wheel, the Python of an environment
    /// that is made in target/python-venv-VERSION.
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Build a wheel, install it into the environment, and test what was installed, as every check does.
    #[arg(long)]
    wheel: bool,
    /// Arguments for pytest.
    #[arg(last = true)]
    pytest: Vec<String>,
}

/// Builds the wheel.
///
/// # Errors
/// A tool is missing or fails.
pub(crate) fn build(root: &Path, options: &Options) -> Result<()> {
    let target = "x86_64-unknown-linux-gnu";
    let profile = if options.dev { "dev" } else { "release" };
    let build = if options.zig { "zigbuild" } else { "build" };
    let mut command = cargo(root);
    match options.dev {
        // With the features of the whole workspace, so that nothing is built twice.
        true => command.args([build, "--workspace", "--bins", "--tests", "--features", PARQUET]),
        false => command.args([build, "--package", "aerostat-cli", "--release", "--features", PARQUET]),
    };
    if options.zig {
        // The target of both, so that what both need is compiled once.
        command.args(["--target", &format!("{target}.2.28")]).env("PATH", beside(&options.python)?);
    }
    run(&mut command, "the command")?;
    let mut folder = root.join("target");
    if options.zig {
        folder.push(target);
    }
    folder.push(if options.dev { "debug" } else { "release" });
    let scripts = root.join(PACKAGE).join("aerostat.data/scripts");
    fs::create_dir_all(&scripts).with_context(|| format!("{} cannot be made", scripts.display()))?;
    copy(&folder.join("aerostat"), &scripts.join("aerostat"))?;
    let out = root.join(&options.out);
    let mut maturin = Command::new(&options.python);
    maturin.current_dir(root.join(PACKAGE)).args(["-m", "maturin", "build", "--profile", profile, "--out"]);
    maturin.arg(&out);
    without_own_variables(&mut maturin);
    if options.zig {
        maturin.args(["--zig", "--compatibility", "manylinux_2_28", "--target", target]);
        maturin.env("PATH", beside(&options.python)?);
    }
    run(&mut maturin, "maturin (`pip install maturin`)")?;
    eprintln!("the wheel is in {}", out.display());
    Ok(())
}

/// The PATH with what lies beside a Python, where pip puts its commands.
fn beside(python: &Path) -> Result<OsString> {
    let folder = python.parent().unwrap_or(Path::new(""));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("the PATH cannot be made")
}

/// Builds a wheel, installs it into an environment of its own, of this Python or of the one on the PATH, and tests what was
/// installed. Gives why not, where such an environment cannot be made.
///
/// # Errors
/// The wheel cannot be built, or a test fails.
pub(crate) fn check(root: &Path, base: Option<&Path>) -> Result<Option<String>> {
    let python = match environment(root, base) {
        Ok(python) => python,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let out = root.join("target/wheels/check");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("{} cannot be emptied", out.display()))?;
    }
    build(root, &Options { out: out.clone(), zig: false, dev: true, python: python.clone() })?;
    let wheels = fs::read_dir(&out).with_context(|| format!("{} cannot be read", out.display()))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"]);
    for wheel in wheels {
        pip.arg(wheel.context("a wheel cannot be found")?.path());
    }
    run(&mut pip, "pip")?;
    inspect(root, &python, None, &["-rs".to_owned()])?;
    look_at_sources(root, &python, &out)?;
    // OpenAI's client against the server, since it is there.
    run(
        Command::new(&python).current_dir(root).arg("oracle/check_serve.py"),
        "OpenAI's client against the server",
    )?;
    Ok(None)
}

/// Makes a source distribution and has pip read it as far as it gets without compiling: what its settings name is in it.
fn look_at_sources(root: &Path, python: &Path, out: &Path) -> Result<()> {
    let folder = out.join("sources");
    let mut maturin = Command::new(python);
    maturin.current_dir(root.join(PACKAGE)).args(["-m", "maturin", "sdist", "--out"]).arg(&folder);
    without_own_variables(&mut maturin);
    run(&mut maturin, "maturin sdist")?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--no-build-isolation"]);
    pip.args(["--ignore-installed", "--no-index"]);
    let made = fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for file in made {
        pip.arg(file.context("a source distribution cannot be found")?.path());
    }
    without_own_variables(&mut pip);
    pip.env("PATH", beside(python)?);
    run(&mut pip, "pip of the source distribution")
}

/// Tests the package as it lies here.
///
/// # Errors
/// A tool is missing, or a test fails.
pub(crate) fn test(root: &Path, options: &TestOptions) -> Result<()> {
    if options.wheel {
        return match check(root, options.python.as_deref())? {
            None => Ok(()),
            Some(why) => bail!("{why}"),
        };
    }
    // With the features of the whole workspace, so that nothing is built twice.
    run(
        cargo(root).args(["build", "--workspace", "--lib", "--bins", "--features", PARQUET]),
        "the extension module",
    )?;
    let sources = root.join(PACKAGE).join("python");
    copy(&root.join("target/debug/lib_aerostat.so"), &sources.join("aerostat/_aerostat.abi3.so"))?;
    let python = match &options.python {
        Some(python) => python.clone(),
        None => environment(root, None)?,
    };
    inspect(root, &python, Some(&sources), &options.pytest)
}

/// Checks types and runs the tests, of the package that a Python has or of one that lies elsewhere.
fn inspect(root: &Path, python: &Path, sources: Option<&Path>, pytest: &[String]) -> Result<()> {
    let package = root.join(PACKAGE);
    let command = |module: &str| {
        let mut command = Command::new(python);
        command.current_dir(&package).args(["-m", module]).env("MYPYPATH", package.join("python"));
        command.env_remove("PYTHONPATH");
        if let Some(sources) = sources {
            command.env("PYTHONPATH", sources);
            command.env("AEROSTAT_COMMAND", root.join("target/debug/aerostat"));
        }
        command
    };
    run(command("mypy").args(["-p", "aerostat"]), "mypy of the package")?;
    run(command("mypy").args(["--strict", "examples"]), "mypy of the examples")?;
    let settings = ["--mypy-config-file", "pyproject.toml"];
    run(command("mypy.stubtest").arg("aerostat._aerostat").args(settings), "mypy.stubtest")?;
    run(command("pytest").args(pytest), "pytest")
}

/// The Python of a virtual environment with what the tests need, made of this Python or of the one on the PATH if it is not
/// there or was made for other needs.
fn environment(root: &Path, base: Option<&Path>) -> Result<PathBuf> {
    let name = match base {
        None => "python-venv".to_owned(),
        Some(base) => format!("python-venv-{}", version(base)?),
    };
    let folder = root.join("target").join(name);
    let python = folder.join("bin/python");
    let (needs, noted) = (TEST_REQUIREMENTS.join("\n"), folder.join("requirements.txt"));
    if fs::read_to_string(&noted).ok().as_deref() != Some(&needs) {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be emptied", folder.display()))?;
        }
        let base = base.unwrap_or(Path::new("python3"));
        run(Command::new(base).args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet"]).args(TEST_REQUIREMENTS);
        if let Err(error) = run(&mut pip, "pip") {
            // One that is half done is not to be taken for whole.
            fs::remove_dir_all(&folder).ok();
            return Err(error);
        }
        fs::write(&noted, needs).with_context(|| format!("{} cannot be written", noted.display()))?;
    }
    Ok(python)
}

/// The version of a Python, such as 3.12.
fn version(python: &Path) -> Result<String> {
    let code = "import sys; print('%d.%d' % sys.version_info[:2])";
    let told = Command::new(python).args(["-c", code]).output();
    let told = told.with_context(|| format!("{} does not start", python.display()))?;
    if !told.status.success() {
        bail!("{} ended with {}", python.display(), told.status);
    }
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // A library that a Python has open is replaced, not written over.
    fs::remove_file(to).ok();
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{what} does not start"))?;
    if !status.success() {
        bail!("{what} ended with {status}");
    }
    Ok(())
}
