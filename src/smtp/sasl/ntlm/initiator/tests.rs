//! NTLM, our client against the values of the document, against our own server, and against servers that mean harm.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::authenticate::Authenticate;
use super::super::compute::tests::hex;
use super::super::message;
use super::*;
use crate::smtp::sasl::{Exchange, Found, Mechanism, Turn};

const RANDOM: Random = *b"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa----------";

/// The CHALLENGE of [MS-NLMP] 4.2.4.3.
fn document_challenge() -> Vec<u8> {
    hex(
        "4e544c4d53535000 02000000 0c000c00 38000000 33828ae2 0123456789abcdef 0000000000000000 24002400 44000000 \
         060070170000000f 530065007200760065007200 02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000",
    )
}

/// The client of the document, whose clock stands at the beginning of FILETIME.
fn document_client() -> Initiator {
    Initiator {
        filetime: 0,
        ..Initiator::new(&RANDOM, 0)
    }
}

/// One of the fields of an AUTHENTICATE message.
fn field_at(message: &[u8], at: usize) -> &[u8] {
    &message[message::range_at(message, at).unwrap()]
}

#[test]
fn the_responses_of_the_document_come_out() {
    let message = document_client()
        .answer(&document_challenge(), "Domain\\User", "Password")
        .unwrap();
    assert_eq!(
        field_at(&message, 12),
        hex("86c35097ac9cec102554764a57cccc19 aaaaaaaaaaaaaaaa"),
        "LMv2"
    );
    let nt = "68cd0ab851e51c96aabc927bebef6a1c 0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000 \
              02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000 00000000";
    assert_eq!(field_at(&message, 20), hex(nt), "NTLMv2");
    assert_eq!(field_at(&message, 28), utf16("Domain"));
    assert_eq!(field_at(&message, 36), utf16("User"));
    assert_eq!(message[64..88], [0; 24], "no time, so no MIC");
}

/// An exchange with our own server up to what is to be answered.
fn challenged(client: &Initiator, hostname: &str) -> (Exchange, Vec<u8>) {
    let (mut server, turn) = Exchange::begin(Mechanism::Ntlm, &Arc::from(hostname), Some(client.first()));
    assert!(matches!(turn, Turn::Ask));
    let found = Found::Nonce {
        random: *b"\x01\x23\x45\x67\x89\xab\xcd\xef----------",
        unix_millis: 1_795_000_000_123,
    };
    match server.found(found) {
        Turn::Challenge(challenge) => (server, challenge),
        turn => panic!("{turn:?}"),
    }
}

fn judged(server: &mut Exchange, message: &[u8]) -> bool {
    let found = Found::NtHash {
        user: Some("alice".into()),
        hash: nt_hash("secret"),
    };
    matches!(server.respond(message), Turn::Ask) && matches!(server.found(found), Turn::Done(_))
}

#[test]
fn our_own_server_lets_us_in_whatever_the_name_looks_like_and_is_sent_a_mic() {
    let long = format!("{}.example", "a".repeat(60));
    for username in [
        "alice",
        "CORP\\Alice",
        "alice@corp.example",
        "stra\u{df}e\\j\u{f6}rg",
        "",
    ] {
        for hostname in ["mx.example.com", &long] {
            let client = Initiator::new(&RANDOM, 1_795_000_000_000);
            let (mut server, challenge) = challenged(&client, hostname);
            let message = client.answer(&challenge, username, "secret").unwrap();
            if username.is_empty() {
                assert!(!judged(&mut server, &message), "nobody");
                continue;
            }
            let read = Authenticate::parse(&message).unwrap();
            assert!(read.mic().is_some_and(|mic| mic != [0; 16]));
            assert_eq!(field_at(&message, 12), [0; 24], "no LM response beside the time");
            assert_eq!(&*read.user, username.rsplit('\\').next().unwrap());
            assert!(judged(&mut server, &message), "{username}");
        }
    }
    let client = Initiator::new(&RANDOM, 0);
    let (mut server, challenge) = challenged(&client, "mx.example.com");
    let message = client.answer(&challenge, "alice", "Secret").unwrap();
    assert!(!judged(&mut server, &message), "another password");
}

/// What goes over the wire, octet by octet: whoever changes it must mean to.
#[test]
fn negotiate_is_what_it_was() {
    let expected = hex("4e544c4d53535000 01000000 05820800 0000000000000000 0000000000000000");
    assert_eq!(Initiator::new(&RANDOM, 0).first(), expected);
}

#[test]
fn a_server_without_attributes_is_answered_with_none() {
    let mut challenge = document_challenge();
    challenge.truncate(32);
    challenge[12..20].fill(0);
    challenge[22] = 0x0a; // no TARGET_INFO
    let message = document_client().answer(&challenge, "User", "Password").unwrap();
    let nt = field_at(&message, 20);
    assert_eq!(nt.len(), 16 + 28 + 8);
    assert_eq!(nt[44..], [0; 8]);
}

/// What is wrong with a challenge, and how it comes to be so.
type Bend = (&'static str, fn(&mut Vec<u8>));

#[test]
fn a_challenge_that_is_broken_is_not_answered() {
    let answer = |challenge: &[u8]| document_client().answer(challenge, "User", "Password");
    let bends: [Bend; 14] = [
        ("nothing", |m| m.clear()),
        ("truncated", |m| m.truncate(40)),
        ("no end", |m| m.truncate(m.len() - 4)),
        ("another signature", |m| m[0] = b'X'),
        ("another type", |m| m[8] = 3),
        ("no Unicode", |m| m[20] &= !1),
        ("a name beyond the end", |m| {
            m[16..20].copy_from_slice(&200_u32.to_le_bytes())
        }),
        ("attributes beyond the end", |m| {
            m[44..48].copy_from_slice(&u32::MAX.to_le_bytes())
        }),
        ("attributes longer than the message", |m| {
            m[40..42].copy_from_slice(&0x7fff_u16.to_le_bytes())
        }),
        ("attributes in the fixed part", |m| {
            m[44..48].copy_from_slice(&20_u32.to_le_bytes())
        }),
        ("a name in the fixed part", |m| {
            m[16..20].copy_from_slice(&20_u32.to_le_bytes())
        }),
        ("name and attributes overlap", |m| {
            m[16..20].copy_from_slice(&0x48_u32.to_le_bytes())
        }),
        ("an attribute longer than its list", |m| {
            m[70..72].copy_from_slice(&0xfff0_u16.to_le_bytes())
        }),
        ("a list without its end", |m| m[40] -= 4),
    ];
    for (what, bend) in bends {
        let mut challenge = document_challenge();
        bend(&mut challenge);
        assert!(answer(&challenge).is_none(), "{what}");
    }
    assert!(answer(&document_challenge()).is_some());
}

/// A challenge with this list of attributes.
fn with_attributes(list: &[u8]) -> Vec<u8> {
    let mut challenge = document_challenge();
    challenge.truncate(68);
    challenge[40..42].copy_from_slice(&(list.len() as u16).to_le_bytes());
    challenge.extend_from_slice(list);
    challenge
}

#[test]
fn attributes_go_back_with_the_flag_of_a_mic_and_what_would_be_ours_replaced() {
    let mut list = Vec::new();
    put_attribute(&mut list, AV_TIMESTAMP, &[5; 8]);
    put_attribute(&mut list, AV_FLAGS, &1_u32.to_le_bytes());
    put_attribute(&mut list, AV_CHANNEL_BINDINGS, &[9; 16]);
    put_attribute(&mut list, AV_END, &[]);
    let message = document_client()
        .answer(&with_attributes(&list), "User", "Password")
        .unwrap();
    let own = &field_at(&message, 20)[44..];
    let mut expected = Vec::new();
    put_attribute(&mut expected, AV_TIMESTAMP, &[5; 8]);
    put_attribute(&mut expected, AV_FLAGS, &3_u32.to_le_bytes());
    put_attribute(&mut expected, AV_TARGET_NAME, &[]);
    put_attribute(&mut expected, AV_CHANNEL_BINDINGS, &[0; 16]);
    expected.extend_from_slice(&[0; 8]);
    assert_eq!(own, expected);
    assert_eq!(field_at(&message, 20)[24..32], [5; 8], "the server's time");
    assert_ne!(message[72..88], [0; 16], "a MIC");
    for (id, value) in [(AV_TIMESTAMP, &[5; 7][..]), (AV_FLAGS, &[0; 3])] {
        let mut list = Vec::new();
        put_attribute(&mut list, id, value);
        put_attribute(&mut list, AV_END, &[]);
        assert!(document_client().answer(&with_attributes(&list), "User", "x").is_none());
    }
    let mut huge = Vec::new();
    put_attribute(&mut huge, 5, &vec![0; MAX_TARGET_INFO]);
    put_attribute(&mut huge, AV_END, &[]);
    assert!(document_client().answer(&with_attributes(&huge), "User", "x").is_none());
}

proptest! {
    #[test]
    fn no_challenge_panics(junk in any::<Vec<u8>>(), at in 0_usize..104, octet: u8, end in 0_usize..105) {
        let client = document_client();
        let made_up = client.answer(&[b"NTLMSSP\0\x02\0\0\0", junk.as_slice()].concat(), "User", "Password");
        prop_assert!(made_up.is_none_or(|message| Authenticate::parse(&message).is_some()));
        let mut challenge = document_challenge();
        challenge[at] = octet;
        challenge.truncate(end);
        let bent = client.answer(&challenge, "User", "Password");
        prop_assert!(bent.is_none_or(|message| Authenticate::parse(&message).is_some()));
    }
}
