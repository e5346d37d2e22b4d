//! The Docker engine against a real daemon and a real registry.
//!
//! Without `CACHEON_TEST_DOCKER` (`unix://..`) and `CACHEON_TEST_REGISTRY` (`HOST:PORT`, without TLS, on a loopback address of
//! the daemon's network) every test counts as ignored. `tests/containers/engine up DIR` starts both and says what to export; they
//! are in namespaces of their own then, and the tests enter them.

mod bench;
mod check;
mod image;
mod left;
mod overhead;
mod pulls;
#[path = "../e2e/round.rs"]
#[expect(dead_code, reason = "the other rounds use more of it")]
mod round;
mod rounds;
mod servers;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// The first process of the namespaces of daemon and registry; none where they are in those of everybody.
const NAMESPACES: &str = "CACHEON_TEST_NAMESPACES";

fn main() -> ExitCode {
    if let Some(pid) = std::env::var_os(NAMESPACES) {
        // Once inside, the number is that of another process or of none.
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(&pid).args(["--net", "--mount", "--pid", "--"]);
        command.arg(std::env::current_exe().expect("this test")).args(std::env::args_os().skip(1));
        let failed = command.env_remove(NAMESPACES).exec();
        panic!("nsenter, into the namespaces of process {}: {failed}", pid.display());
    }
    let mut arguments = Arguments::from_args();
    // They share a machine's memory and time.
    arguments.test_threads = Some(1);
    let is_there = bench::Addresses::from_env().is_some();
    let tests = servers::TESTS
        .iter()
        .chain(pulls::TESTS)
        .chain(rounds::TESTS)
        .chain(check::TESTS)
        .chain(left::TESTS)
        .chain(overhead::TESTS);
    let trials = tests.map(|(name, test)| {
        let trial = Trial::test(*name, || {
            test(bench::bench());
            Ok(())
        });
        trial.with_ignored_flag(!is_there)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
