//! The golden files of version 1, one per kind: what was written once is read for ever, and written the same.
//!
//! `SEGUE_WRITE_GOLDEN=1 cargo test -p broker-adapter golden` writes them anew, for a kind that is new.

use std::path::PathBuf;

use super::samples::one_of_every_kind;
use super::wire;

const HEX_BYTES_PER_LINE: usize = 40;

fn path(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/v1").join(format!("{kind}.hex"))
}

fn to_hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(HEX_BYTES_PER_LINE).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect());
    lines.collect::<Vec<String>>().join("\n") + "\n"
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn golden(kind: &str) -> Vec<u8> {
    from_hex(&std::fs::read_to_string(path(kind)).unwrap_or_else(|error| panic!("golden file of {kind}: {error}")))
}

#[test]
fn golden_files_are_rewritten_only_when_asked() {
    if std::env::var_os("SEGUE_WRITE_GOLDEN").is_none() {
        return;
    }
    std::fs::create_dir_all(path("x").parent().unwrap()).unwrap();
    for record in one_of_every_kind() {
        std::fs::write(path(record.kind()), to_hex(&wire::encode(&record).bytes)).unwrap();
    }
}

#[test]
fn every_kind_is_written_as_its_golden_file() {
    for record in one_of_every_kind() {
        assert_eq!(to_hex(&wire::encode(&record).bytes), to_hex(&golden(record.kind())), "{}", record.kind());
    }
}

#[test]
fn every_golden_file_is_read_as_its_record() {
    for record in one_of_every_kind() {
        let bytes = golden(record.kind());
        let (read, crc) = wire::decode(&bytes).unwrap();
        assert_eq!(read, record);
        assert_eq!(crc, wire::encode(&record).crc);
    }
}

#[test]
fn every_kind_of_version_1_has_a_golden_file_and_no_other_has() {
    let expected = "Attempt Checkpoint Close Digest Effect Entry Fence Mark Message Output Pin Seal Settings Skip Tick";
    let mut samples: Vec<_> = one_of_every_kind().iter().map(|record| record.kind()).collect();
    samples.sort_unstable();
    assert_eq!(samples.join(" "), expected);
    let folder = path("x");
    let entries = std::fs::read_dir(folder.parent().unwrap()).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort_unstable();
    let expected: Vec<_> = expected.split(' ').map(|kind| format!("{kind}.hex")).collect();
    assert_eq!(files, expected);
}
