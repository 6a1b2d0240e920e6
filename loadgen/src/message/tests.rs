//! Messages as they are written, and as they are found again.

use super::size::Sizes;
use super::*;

fn recipe(size: usize, bdat: bool) -> Recipe {
    let to = recipients(&["a@example.com".into()], 2);
    Recipe {
        name: "test".into(),
        from: "f@example.com".into(),
        to,
        matter: Matter::Generated(Sizes::fixed(size)),
        bdat: bdat.then_some(1),
        lmtp: false,
        smtputf8: false,
        group: !bdat,
        run: 0xabc,
    }
}

#[test]
fn the_content_has_exactly_the_size_asked_for_and_proper_lines() {
    let least = generated::least(&recipe(1 << 20, false)) - 2;
    for size in (least + 2..least + 400).chain([4096, 100_000]) {
        let mut wire = Wire::new(&recipe(size, false)).unwrap();
        let text = String::from_utf8(wire.octets(Chunk::Content, 7, 7).to_vec()).unwrap();
        let text = text.strip_suffix(".\r\n").unwrap();
        assert_eq!(text.len(), size);
        for line in text.split_inclusive('\n') {
            assert!(
                line.ends_with("\r\n") && line.len() <= 82 && !line.starts_with('.'),
                "{line:?}"
            );
            assert_eq!(line.matches(['\r', '\n']).count(), 2, "{line:?}");
        }
    }
}

#[test]
fn a_size_without_room_for_the_header_is_refused_with_the_size_needed() {
    let error = Wire::new(&recipe(100, false)).unwrap_err();
    assert!(error.contains("at least"), "{error}");
}

#[test]
fn the_header_has_about_six_hundred_octets() {
    let header = generated::least(&recipe(4096, false));
    assert!((500..800).contains(&header), "{header}");
}

#[test]
fn the_identity_is_patched_wherever_the_content_is() {
    for (bdat, chunk) in [(false, Chunk::Content), (true, Chunk::Content), (true, Chunk::Envelope)] {
        let mut wire = Wire::new(&recipe(2000, bdat)).unwrap();
        for serial in [0, 42, 999_999_999_999] {
            let text = String::from_utf8(wire.octets(chunk, serial, 7).to_vec()).unwrap();
            assert!(text.contains(&format!("\r\nX-Loadgen-Id: 00000abc-{serial:012}; c=000007; body=")));
        }
        assert_eq!(wire.content_end(chunk, 1), Some(wire.octets(chunk, 1, 7).len()));
    }
}

#[test]
fn a_group_is_the_content_with_its_identity_and_what_follows() {
    let mut wire = Wire::new(&recipe(2000, false)).unwrap();
    let [content, envelope, quit] =
        [Chunk::Content, Chunk::Envelope, Chunk::Quit].map(|chunk| wire.octets(chunk, 42, 7).to_vec());
    for (group, behind) in [(Chunk::ContentAndEnvelope, envelope), (Chunk::ContentAndQuit, quit)] {
        assert_eq!(wire.octets(group, 42, 7), [content.as_slice(), &behind].concat());
        assert_eq!(wire.content_end(group, 1), Some(content.len()));
    }
}

#[test]
fn the_pipelined_envelope_is_all_commands_in_order() {
    let mut wire = Wire::new(&recipe(2000, false)).unwrap();
    let expected = "MAIL FROM:<f@example.com>\r\nRCPT TO:<a@example.com>\r\n\
                    RCPT TO:<a2@example.com>\r\nDATA\r\n";
    assert_eq!(wire.octets(Chunk::Envelope, 1, 7), expected.as_bytes());
}

#[test]
fn bdat_announces_the_octets_that_follow() {
    let mut wire = Wire::new(&recipe(2000, true)).unwrap();
    let chunk = wire.octets(Chunk::Content, 1, 7);
    let end = memchr::memchr(b'\n', chunk).unwrap() + 1;
    assert_eq!(&chunk[..end], b"BDAT 2000 LAST\r\n");
    assert_eq!(chunk.len() - end, 2000);
}

/// What an examiner says of a content in `chunk`, dots taken out.
fn examined(wire: &mut Wire, serial: u64) -> crate::identity::Found {
    let octets = wire.octets(Chunk::Content, serial, 7).to_vec();
    let content = octets.strip_suffix(b".\r\n").unwrap();
    let text = String::from_utf8_lossy(content).replace("\r\n.", "\r\n");
    let mut examiner = crate::identity::Examiner::default();
    examiner.feed(text.as_bytes());
    examiner.finish()
}

#[test]
fn every_message_is_what_its_identity_says() {
    let mut wire = Wire::new(&recipe(2000, false)).unwrap();
    let found = examined(&mut wire, 42);
    let identity = found.identity.unwrap();
    assert_eq!((identity.run, identity.serial, identity.connection), (0xabc, 42, 7));
    assert!(!found.is_altered());
}

#[test]
fn sizes_of_a_distribution_take_turns() {
    let mut wire = Wire::new(&Recipe {
        matter: Matter::Generated("500..9000".parse().unwrap()),
        ..recipe(0, false)
    })
    .unwrap();
    let sizes: Vec<usize> = (0..400)
        .map(|serial| wire.octets(Chunk::Content, serial, 0).len())
        .collect();
    assert_eq!(sizes[..200], sizes[200..]);
    let mut sorted = sizes.clone();
    sorted.sort_unstable();
    assert!(sorted[0] < 900 && sorted[399] > 8900 && sorted != sizes);
    for serial in 0..200 {
        assert_eq!(wire.content_end(Chunk::Content, serial), Some(sizes[serial as usize]));
        assert!(!examined(&mut wire, serial).is_altered());
    }
}

#[test]
fn messages_that_were_read_get_an_identity_on_top_and_their_dots_stuffed() {
    let read = b"Subject: x\r\n\r\n.dot\r\n..\r\nlast\r\n".to_vec();
    let of = |bdat| Recipe {
        matter: Matter::Read(vec![read.clone(), b"no header".to_vec()]),
        ..recipe(0, bdat)
    };
    let mut wire = Wire::new(&of(false)).unwrap();
    let texts: Vec<String> = (0..2)
        .map(|serial| String::from_utf8(wire.octets(Chunk::Content, serial, 0).to_vec()).unwrap())
        .collect();
    assert!(texts.iter().all(|text| text.starts_with("X-Loadgen-Id: 00000abc-")));
    assert!(
        texts
            .iter()
            .any(|text| text.ends_with("\r\n..dot\r\n...\r\nlast\r\n.\r\n"))
    );
    assert!((0..2).all(|serial| !examined(&mut wire, serial).is_altered()));
    let mut wire = Wire::new(&of(true)).unwrap();
    let plain = String::from_utf8(wire.octets(Chunk::Content, 0, 0).to_vec()).unwrap();
    assert!(plain.starts_with("BDAT ") && !plain.contains("..dot"));
}

#[test]
fn octets_above_127_are_announced() {
    let mut wire = Wire::new(&Recipe {
        matter: Matter::Read(vec![b"Subject: x\r\n\r\n\xff\r\n".to_vec()]),
        ..recipe(0, false)
    })
    .unwrap();
    assert_eq!(
        wire.octets(Chunk::Mail, 0, 0),
        b"MAIL FROM:<f@example.com> BODY=8BITMIME\r\n"
    );
}

#[test]
fn messages_that_are_too_much_to_keep_are_refused() {
    let error = Wire::new(&recipe(CONTENTS_MAX + 1, false)).unwrap_err();
    assert!(error.contains("more than"), "{error}");
}
