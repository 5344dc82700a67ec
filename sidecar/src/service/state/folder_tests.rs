//! Folders on their way out and in.

use super::*;

fn entry(path: &Path, kind: EntryType, content: &[u8], link: Option<&str>) -> Vec<u8> {
    let mut header = Header::new_gnu();
    // The way that the crate would refuse to write.
    let name = path.as_os_str().as_bytes();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn reader(bytes: Vec<u8>, length: usize) -> PieceReader {
    let (sender, pieces) = mpsc::channel(1 + bytes.len() / 100);
    for piece in bytes.chunks(100) {
        sender.try_send(Bytes::copy_from_slice(piece)).unwrap();
    }
    PieceReader { pieces, piece: Bytes::new(), left: length as u64 }
}

fn packed(folder: &Path) -> io::Result<Vec<u8>> {
    let (sender, mut pieces) = mpsc::channel(10_000);
    pack(folder, PieceWriter { sender, piece: BytesMut::new() })?;
    let mut all = Vec::new();
    while let Ok(Piece::Bytes(piece)) = pieces.try_recv() {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn filled(order: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in order {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), name.repeat(1_000)).unwrap();
    }
    folder
}

#[test]
fn equal_folders_give_equal_bytes_and_come_back() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let (one, other) = (filled(&["b", "a/x", "a/b/y", &long]), filled(&[&long, "a/b/y", "a/x", "b"]));
    for folder in [&one, &other] {
        symlink("a/x", folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        fs::set_permissions(folder.path().join("b"), Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(folder.path().join("a/b"), Permissions::from_mode(0o555)).unwrap();
    }
    let bytes = packed(one.path()).unwrap();
    assert_eq!(bytes, packed(other.path()).unwrap());
    let to = filled(&["old", "older/file"]);
    unpack(to.path(), reader(bytes.clone(), bytes.len())).unwrap();
    assert_eq!(packed(to.path()).unwrap(), bytes);
    assert!(!to.path().join("old").exists());
    fs::write(to.path().join("b"), "changed").unwrap();
    assert_ne!(packed(to.path()).unwrap(), bytes);
}

#[test]
fn what_is_no_file_folder_or_inner_link_is_refused_by_name() {
    let folder = filled(&["a"]);
    let socket = folder.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(packed(folder.path()).unwrap_err().to_string().contains("socket: it is neither"));
    fs::remove_file(socket).unwrap();
    for target in ["/etc/passwd", "..", "a/../../b"] {
        let link = folder.path().join("link");
        symlink(target, &link).unwrap();
        let refused = packed(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("link: it is a link to") && refused.contains("leads out"), "{refused}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn a_stream_cannot_reach_out_of_its_folder() {
    let outside = tempfile::tempdir().unwrap();
    let inner = outside.path().join("state");
    let absolute = outside.path().join("absolute");
    let escapes = [
        entry(Path::new("../out"), EntryType::Regular, b"x", None),
        entry(&absolute, EntryType::Regular, b"x", None),
        entry(Path::new("link"), EntryType::Symlink, b"", Some("../out")),
        entry(Path::new("hard"), EntryType::Link, b"", Some("/etc/passwd")),
        entry(Path::new("pipe"), EntryType::Fifo, b"", None),
        [
            entry(Path::new("link"), EntryType::Symlink, b"", Some("..")),
            entry(Path::new("link/out"), EntryType::Regular, b"x", None),
        ]
        .concat(),
    ];
    for mut bytes in escapes {
        bytes.extend_from_slice(&[0; 1_024]);
        let length = bytes.len();
        unpack(&inner, reader(bytes, length)).unwrap_err();
        assert!(!outside.path().join("out").exists() && !absolute.exists());
    }
}

#[test]
fn a_stream_that_ends_early_is_no_state() {
    let folder = filled(&["a", "b"]);
    let bytes = packed(folder.path()).unwrap();
    let to = tempfile::tempdir().unwrap();
    // Whole entries, and the end missing: only the length tells.
    for cut in [bytes.len() - 1_024, 1_000, 0] {
        let refused = unpack(to.path(), reader(bytes[..cut].to_vec(), bytes.len())).unwrap_err();
        assert!(refused.to_string().contains(EARLY_END), "{refused}");
    }
}
