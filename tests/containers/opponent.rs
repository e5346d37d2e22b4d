//! What a hostile image may run, one act a name: `container-opponent ACT [NUMBER]`. What it saw stands on stdout.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let act = arguments.get(1).map(String::as_str).unwrap_or_default();
    let number = arguments.get(2).and_then(|number| number.parse().ok()).unwrap_or(0);
    match act {
        "exit" => exit(number),
        "sleep" => sleep(),
        "ignore-sigterm" => ignore_sigterm(),
        "take-memory" => take_memory(number),
        "fork" => fork(number),
        "write-everywhere" => write_everywhere(Path::new("/")),
        "flood" => flood(number),
        "show-rights" => show_rights(&["CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"]),
        "show-user" => show_rights(&["Uid", "Gid"]),
        "reach" => reach(&arguments[2..]),
        _ => panic!("no act `{act}`"),
    }
}

fn say(words: &str) {
    // Whoever reads no more does not want it.
    let _ = writeln!(std::io::stdout(), "{words}");
}

fn exit(code: u64) {
    say("these are my last words");
    std::process::exit(i32::try_from(code).expect("a code"));
}

fn sleep() {
    say("ready");
    loop {
        std::thread::sleep(Duration::from_mins(1));
    }
}

fn ignore_sigterm() {
    let told = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, told).expect("a handler");
    sleep();
}

fn take_memory(mib: u64) {
    let mut taken = Vec::new();
    for _ in 0..mib {
        // Not zero: a page of zeros is none.
        taken.push(vec![1_u8; 1 << 20]);
    }
    say(&format!("took {} MiB", std::hint::black_box(&taken).len()));
}

/// Starts as many processes as it is told, or as it can; all of them stay.
fn fork(wanted: u64) {
    let own = std::env::current_exe().expect("this program");
    let mut started = 0;
    while started < wanted {
        match Command::new(&own).arg("sleep").stdout(std::process::Stdio::null()).spawn() {
            Ok(_) => started += 1,
            Err(error) => {
                say(&format!("refused: {error}"));
                break;
            }
        }
    }
    say(&format!("started {started}"));
}

/// Tries to write into each folder, and says where it could. Not below those of the kernel, where there is nothing to be kept.
fn write_everywhere(folder: &Path) {
    if [Path::new("/proc"), Path::new("/sys")].contains(&folder) {
        return;
    }
    if std::fs::write(folder.join("left-behind"), "x").is_ok() {
        say(&format!("wrote {}", folder.display()));
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            write_everywhere(&entry.path());
        } else if std::fs::OpenOptions::new().append(true).open(entry.path()).is_ok_and(|file| {
            // Those of `/dev` are no files.
            file.metadata().is_ok_and(|is| is.is_file()) && !entry.path().ends_with("left-behind")
        }) {
            say(&format!("opened {}", entry.path().display()));
        }
    }
}

fn flood(mib: u64) {
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let mut out = std::io::stdout().lock();
    for _ in 0..mib * 1024 {
        out.write_all(&line).expect("stdout");
    }
    out.write_all(b"the end of the flood\n").expect("stdout");
}

/// Tries to reach each address, and says which interfaces there are.
fn reach(addresses: &[String]) {
    for address in addresses {
        let there = address.parse().expect("an address");
        match std::net::TcpStream::connect_timeout(&there, Duration::from_secs(2)) {
            Ok(_) => say(&format!("reached {address}")),
            Err(error) => say(&format!("{address}: {:?}", error.kind())),
        }
    }
    let found = std::fs::read_to_string("/proc/net/dev").expect("proc");
    let names = found.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    say(&format!("interfaces: {}", names.collect::<Vec<_>>().join(" ")));
}

fn show_rights(rights: &[&str]) {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    for line in status.lines() {
        if line.split_once(':').is_some_and(|(name, _)| rights.contains(&name)) {
            say(&line.replace('\t', " "));
        }
    }
}
