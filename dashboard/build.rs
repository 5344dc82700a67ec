//! Builds the page in `web/` with npm and writes down what is to be embedded.
//!
//! Everything happens in a copy under OUT_DIR; the source tree stays as it is. Where npm is missing or fails, the build goes on with a
//! warning and a page that says so. What comes out: OUT_DIR/embedded.rs with one entry per file, each beside its gzipped twin.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the page is built from; tests are not.
const SOURCES: [&str; 8] =
    ["src", "public", "build", "index.html", "package.json", "package-lock.json", "vite.config.ts", "svelte.config.js"];
/// What vite runs on, major and minor.
const NODE_MIN: (u32, u32) = (20, 19);
/// Stands in `missing.html` for why the page is not there.
const REASON: &str = "{{reason}}";

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let web = manifest.join("web");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", web.join(source).display());
    }
    println!("cargo:rerun-if-changed={}", manifest.join("src/missing.html").display());

    let page = out.join("page");
    let real = match build(&web, &out.join("web"), &page) {
        Ok(()) => true,
        Err(reason) => {
            println!("cargo:warning=the dashboard is not embedded: {reason}");
            println!(
                "cargo:warning=install Node.js 20.19 or newer with npm, then build again; everything else works without it"
            );
            // npm that is installed later is usually found on another path. A page that was built does not ask: cargo would build
            // everything above this crate again for each shell with a path of its own.
            println!("cargo:rerun-if-env-changed=PATH");
            // A registry that did not answer may answer the next build: a file that never is makes cargo ask again.
            if reason.starts_with("npm") {
                println!("cargo:rerun-if-changed={}", out.join("never").display());
            }
            missing(&manifest, &page, &reason).expect("OUT_DIR can be written");
            false
        }
    };
    fs::write(out.join("embedded.rs"), entries(&page, real).expect("OUT_DIR can be read"))
        .expect("OUT_DIR can be written");
}

/// The real page into `page`, or why not.
fn build(web: &Path, copy: &Path, page: &Path) -> Result<(), String> {
    let node = Command::new("node").arg("--version").output().map_err(|_| "there is no node".to_owned())?;
    let version = String::from_utf8_lossy(&node.stdout).trim().to_owned();
    if !is_new_enough(&version) {
        return Err(format!("node {version} is older than {}.{}", NODE_MIN.0, NODE_MIN.1));
    }
    for source in SOURCES {
        let to = copy.join(source);
        // What was taken out of the sources must not stay in the copy.
        let _gone = if to.is_dir() { fs::remove_dir_all(&to) } else { Ok(()) };
        copy_all(&web.join(source), &to).map_err(|error| format!("{source} cannot be copied: {error}"))?;
    }
    install(copy)?;
    run(Command::new("npm").args(["run", "build"]).env("SEGUE_PAGE_OUT", page).current_dir(copy))
}

/// `v20.19.2`, as node tells it.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|told| told >= NODE_MIN)
}

/// What the page needs, exactly as locked; nothing to do if that is there already.
fn install(copy: &Path) -> Result<(), String> {
    let lock = fs::read(copy.join("package-lock.json")).map_err(|error| format!("package-lock.json: {error}"))?;
    let stamp = copy.join("installed-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let arguments = ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(arguments).current_dir(copy))?;
    fs::write(&stamp, lock).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("npm cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = [output.stderr, output.stdout].concat();
    let told = String::from_utf8_lossy(&told);
    // The first lines name the cause, and no folder of this machine.
    let lines: Vec<&str> = told.lines().filter(|line| line.to_lowercase().contains("error")).take(3).collect();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(format!("npm {} failed: {}", arguments.join(" "), lines.join(" | ")))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The page that says why there is none.
fn missing(manifest: &Path, page: &Path, reason: &str) -> io::Result<()> {
    let _old = fs::remove_dir_all(page);
    fs::create_dir_all(page)?;
    let escaped = reason.replace('&', "&amp;").replace('<', "&lt;");
    let text = fs::read_to_string(manifest.join("src/missing.html"))?.replace(REASON, &escaped);
    fs::write(page.join("index.html"), text)
}

/// Rust that names every file of the page.
fn entries(page: &Path, real: bool) -> io::Result<String> {
    let mut files = Vec::new();
    list(page, &mut files)?;
    files.sort();
    let mut text = format!("pub const REAL: bool = {real};\npub const ASSETS: &[Asset] = &[\n");
    for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "gz")) {
        let bytes = fs::read(file)?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let name = file.strip_prefix(page).expect("listed below it").to_string_lossy().replace('\\', "/");
        let packed = PathBuf::from(format!("{}.gz", file.display()));
        let gzip = if packed.exists() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
        let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
        writeln!(
            text,
            "    Asset {{ path: {path:?}, hash: \"{:016x}\", plain: include_bytes!({file:?}), gzip: {gzip} }},",
            hasher.finish()
        )
        .expect("a String takes everything");
    }
    text.push_str("];\n");
    Ok(text)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
