//! `onair generate`: the manual pages and the completions of shells that packages install, made from the description of
//! the command line itself, so that they cannot say anything else.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap_complete::Shell;

use crate::cli;

/// Writes everything; files that are there are written anew.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn run(args: &cli::Generate) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    written(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Manual pages in `man`, one per verb, and for each shell a file by the name that it looks for.
fn written(folder: &Path) -> std::io::Result<()> {
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(cli::shown(), &pages)?;
    for (shell, file) in [
        (Shell::Bash, "onair.bash"),
        (Shell::Fish, "onair.fish"),
        (Shell::Zsh, "_onair"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli::shown(), "onair", &mut script);
        fs::write(folder.join(file), script)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_is_shown_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path()).unwrap();
        written(folder.path()).expect("a second time");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let scripts = ["onair.bash", "onair.fish", "_onair"].map(read);
        let page = read("man/onair.1");
        assert!(page.contains("Exit codes"), "{page}");
        let shown = cli::shown();
        let verbs: Vec<&str> = shown.get_subcommands().map(|v| v.get_name()).collect();
        for verb in ["run", "check", "devices"] {
            assert!(verbs.contains(&verb), "{verbs:?}");
        }
        assert!(!verbs.contains(&"generate"));
        for verb in verbs {
            let page = read(&format!("man/onair-{verb}.1"));
            assert!(page.contains("Examples:"), "{page}");
            assert!(scripts.iter().all(|script| script.contains(verb)), "{verb}");
        }
    }
}
