//! Every profile of the lab in every kind of network, with real packets: the built agent and the built lab in network
//! namespaces of their own, joined by a router that drops what the network in question drops.
//!
//! `cells` is the table of what is expected, `world` the network of one cell, `program` a program in it, `cast` the
//! programs there are, `services` what stands beside the lab, `scenario` what happens there, `outcome` what came of it,
//! `table` what came of all. A runner of its own instead of the usual harness, for three reasons: cells mostly wait, so
//! more of them run at a time than there are processors; all of it runs inside one sandbox (own mounts, own processes),
//! of which nothing is left however it ends; and the figures of all cells make one table, printed and written to
//! `target/tmp/netns/`.
//!
//! Words on the command line select the cells whose names hold all of them. Without root or user namespaces, or
//! without nftables, everything is skipped, by name.

#![expect(
    clippy::print_stdout,
    reason = "a runner speaks to whoever runs it, a role to its parent"
)]

mod cast;
mod cells;
mod outcome;
mod program;
mod scenario;
mod services;
mod table;
mod world;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use cells::{Cell, Group};
use outcome::Outcome;
use table::Table;

/// The word by which the runner knows that it is in the sandbox.
const INSIDE: &str = "--inside-the-sandbox";

/// Cells at a time. They wait more than they compute; more of them at once would disturb each other's times.
const AT_A_TIME: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        for cell in cells::all() {
            println!("{}: test", cell.name());
        }
        return ExitCode::SUCCESS;
    }
    match arguments.split_first() {
        Some((word, rest)) if word == INSIDE => return inside(rest),
        Some((word, [certificates])) if word == services::ROLE => {
            return services::serve(Path::new(certificates));
        }
        Some((word, [page])) if word == services::ASK => return services::ask(page),
        _ => {}
    }
    match sandboxed(&arguments) {
        Ok(code) => code,
        Err(why) => {
            println!("skipped: tests/netns: {why}");
            println!("0 passed, 0 failed, {} skipped", cells::all().len());
            ExitCode::SUCCESS
        }
    }
}

/// Runs this program again with mounts, processes and network of its own. Says why not if the machine does not allow it.
fn sandboxed(arguments: &[String]) -> Result<ExitCode, String> {
    for (program, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("unshare", "util-linux"),
    ] {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            return Err(format!(
                "{program} is not installed (make setup installs {package})"
            ));
        }
    }
    let sandbox = || {
        let mut command = Command::new("unshare");
        if !world::is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ]);
        command
    };
    let tried = sandbox()
        .args(["sh", "-c", world::PROOF])
        .output()
        .map_err(|error| format!("unshare does not run: {error}"))?;
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr);
        return Err(format!(
            "this machine allows no network namespaces or no nftables in them ({})",
            said.trim().replace('\n', "; ")
        ));
    }
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let ended = sandbox().arg(this).arg(INSIDE).args(arguments).status();
    let ended = ended.map_err(|error| format!("unshare does not run: {error}"))?;
    Ok(if ended.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the cells that `arguments` select.
fn inside(arguments: &[String]) -> ExitCode {
    let mut words: Vec<&str> = Vec::new();
    let mut at_a_time = AT_A_TIME;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), argument.strip_prefix("--test-threads=")) {
            (_, Some(n)) => at_a_time = n.parse().unwrap_or(AT_A_TIME),
            ("--test-threads", None) => {
                at_a_time = rest
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(AT_A_TIME);
            }
            (word, None) if !word.starts_with('-') => words.push(word),
            // The usual harness's flags mean nothing here.
            (_, None) => {}
        }
    }
    let selected = |cell: &Cell| words.iter().all(|word| cell.name().contains(word));
    let (alone, together): (Vec<Cell>, Vec<Cell>) = cells::all()
        .into_iter()
        .filter(selected)
        .partition(|cell| cell.group == Group::Rungs);
    let n_cells = alone.len() + together.len();
    if n_cells == 0 {
        println!("0 passed, 0 failed, 0 skipped");
        return ExitCode::SUCCESS;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("netns");
    let began = world::now();
    let addresses = [world::INGEST, world::TURN, world::PROXY];
    let ready = world::prepare(&folder).and_then(|()| services::certify(&folder, &addresses));
    let table = match ready {
        // Times are taken where nothing else runs.
        Ok(()) => Table::new([run(alone, 1, &folder), run(together, at_a_time, &folder)].concat()),
        Err(why) => {
            println!("tests/netns: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("\n{}", table.markdown());
    let written = table.write(&folder);
    if let Err(why) = &written {
        println!("tests/netns: {why}");
    }
    let (passed, failed) = table.counts();
    println!(
        "tests/netns: {n_cells} cells in {} s, files in {}",
        began.elapsed().as_secs(),
        folder.display()
    );
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs `cells`, some at a time, and says of each at once what came of it.
fn run(cells: Vec<Cell>, at_a_time: usize, folder: &Path) -> Vec<Outcome> {
    let n_cells = cells.len();
    let waiting: Mutex<VecDeque<(usize, Cell)>> =
        Mutex::new(cells.into_iter().enumerate().collect());
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let next = || waiting.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, n_cells.max(1)) {
            scope.spawn(|| {
                while let Some((n, cell)) = next() {
                    let outcome = one(&cell, folder);
                    println!("{}", outcome.line());
                    outcomes
                        .lock()
                        .expect("no thread panics with it")
                        .push((n, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics with it");
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Runs one cell in a folder of its own.
fn one(cell: &Cell, parent: &Path) -> Outcome {
    let folder: PathBuf = parent.join(cell.name().replace([' ', ','], "-"));
    let began: Instant = world::now();
    let seen = scenario::play(cell, &folder, parent);
    Outcome::judge(cell, seen, began.elapsed(), &folder)
}
