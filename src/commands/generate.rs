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
    clap_mangen::generate_to(cli::command(), &pages)?;
    for (shell, file) in [
        (Shell::Bash, "onair.bash"),
        (Shell::Fish, "onair.fish"),
        (Shell::Zsh, "_onair"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli::command(), "onair", &mut script);
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
        let scripts = ["onair.bash", "onair.fish", "_onair"]
            .map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
        let mut pages = 0;
        for verb in cli::command().get_subcommands() {
            let name = verb.get_name();
            let page = folder.path().join(format!("man/onair-{name}.1"));
            assert_eq!(page.exists(), !verb.is_hide_set(), "{name}");
            if verb.is_hide_set() {
                continue;
            }
            pages += 1;
            let page = fs::read_to_string(page).unwrap();
            assert!(
                page.contains(&format!(".TH onair\\-{name} 1"))
                    || page.contains(&format!(".TH onair-{name} 1")),
                "{page}"
            );
            assert!(scripts.iter().all(|script| script.contains(name)), "{name}");
        }
        assert!(pages > 0);
        assert!(folder.path().join("man/onair.1").exists());
    }
}
