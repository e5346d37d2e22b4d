//! The faults of GPUs in the kernel's log.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::model::Xid;

/// The kernel's log, a record each time it is read (`Documentation/ABI/testing/dev-kmsg`).
const LOG: &str = "/dev/kmsg";
/// Longest record that the kernel gives at once.
const MAX_RECORD: usize = 8192;
/// Most records that are read; the kernel keeps fewer.
const MAX_RECORDS: usize = 1_000_000;
/// Most faults that are kept, the last ones.
const MAX_XIDS: usize = 256;

/// The faults that the driver reported, oldest first, as far as the kernel remembers; none where this program may not read
/// the log.
pub(super) fn xids() -> Option<Vec<Xid>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open(LOG).ok()?;
    let mut record = [0; MAX_RECORD];
    let mut found = Vec::new();
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => found.extend(record.get(..length).and_then(parse)),
            // It was overwritten before it was read: the next one is.
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    found.drain(..found.len().saturating_sub(MAX_XIDS));
    Some(found)
}

/// The fault that a record tells of: `4,1234,5678,-;NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', ...`, from the kernel and
/// nobody else.
fn parse(record: &[u8]) -> Option<Xid> {
    let record = str::from_utf8(record).ok()?;
    let (head, message) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    // What a program wrote there has another facility (syslog(2)).
    if priority >> 3 != 0 {
        return None;
    }
    let rest = message.strip_prefix("NVRM: Xid (")?;
    let (pci, rest) = rest.split_once("): ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let fits = pci.len() <= 32 && pci.chars().all(|c| c.is_ascii_alphanumeric() || ":.".contains(c));
    Some(Xid { pci: fits.then(|| pci.trim_start_matches("PCI:").to_owned())?, code: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_driver_tells_of_a_fault() {
        let check = |record: &str, expected: Option<(&str, u32)>| {
            let expected = expected.map(|(pci, code)| Xid { pci: pci.to_owned(), code });
            assert_eq!(parse(record.as_bytes()), expected, "{record}");
        };
        check(
            "4,1234,56789,-;NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n SUBSYSTEM=pci\n",
            Some(("0000:41:00", 79)),
        );
        check("2,1,1,-;NVRM: Xid (PCI:0000:01:00): 31, pid=77, name=x, Ch 8", Some(("0000:01:00", 31)));
        // Written by a program: facility 1.
        check("12,1,1,-;NVRM: Xid (PCI:0000:41:00): 79, forged", None);
        for record in [
            "",
            ";",
            "4;NVRM: GPU at PCI:0000:41:00",
            "4,1;NVRM: Xid (PCI:0000:41:00",
            "4,1;NVRM: Xid (PCI:0000:41:00): none",
            "x,1;NVRM: Xid (PCI:0000:41:00): 79",
            "4,1;NVRM: Xid (../../): 79",
            "4,1;NVRM: Xid (PCI:0): 99999999999",
        ] {
            check(record, None);
        }
        assert_eq!(parse(&[0xff, b';']), None);
    }

    #[test]
    fn the_log_of_this_machine_is_read_or_not() {
        assert!(xids().is_none_or(|found| found.len() <= MAX_XIDS));
    }
}
