//! NTLM against a client of our own, which does what [MS-NLMP] section 3.1 says.

use proptest::prelude::*;

use super::compute::{mic, nt_hash, nt_proof, ntowf_v2, rc4, session_base_key, utf16};
use super::*;
use crate::smtp::sasl::{Exchange, Mechanism};

const NEGOTIATE_FLAGS: u32 = 0xe208_8297;

/// How the client answers.
#[derive(Clone, Copy)]
struct Client {
    user: &'static str,
    domain: &'static str,
    password: &'static str,
    mic: bool,
    key_exchange: bool,
    unicode: bool,
    version: bool,
}

const ALICE: Client = Client {
    user: "Alice",
    domain: "CORP",
    password: "secret",
    mic: true,
    key_exchange: false,
    unicode: true,
    version: true,
};

fn negotiate() -> Vec<u8> {
    let mut message = b"NTLMSSP\0\x01\0\0\0".to_vec();
    message.extend_from_slice(&NEGOTIATE_FLAGS.to_le_bytes());
    message.extend_from_slice(&[0; 16]);
    message
}

/// An exchange up to the challenge.
fn challenged() -> (Exchange, Vec<u8>) {
    let (mut exchange, turn) = Exchange::begin(Mechanism::Ntlm, &Arc::from("mx.example.com"), Some(&negotiate()));
    assert!(matches!(turn, Turn::Ask));
    assert_eq!(exchange.wanted(), Some(Wanted::Nonce));
    let found = Found::Nonce {
        random: *b"\x01\x23\x45\x67\x89\xab\xcd\xef----------",
        unix_millis: 1_795_000_000_123,
    };
    match exchange.found(found) {
        Turn::Challenge(challenge) => (exchange, challenge),
        turn => panic!("{turn:?}"),
    }
}

fn target_info(challenge: &[u8]) -> &[u8] {
    let length = u16::from_le_bytes(challenge[40..42].try_into().unwrap()) as usize;
    let start = u32::from_le_bytes(challenge[44..48].try_into().unwrap()) as usize;
    &challenge[start..start + length]
}

impl Client {
    fn authenticate(self, challenge: &[u8]) -> Vec<u8> {
        let info = target_info(challenge);
        let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
        temp.extend_from_slice(&[3; 8]); // the time
        temp.extend_from_slice(&[0xaa; 8]);
        temp.extend_from_slice(&[0; 4]);
        temp.extend_from_slice(&info[..info.len() - 4]);
        if self.mic {
            temp.extend_from_slice(&[6, 0, 4, 0, 2, 0, 0, 0]);
        }
        temp.extend_from_slice(&[0; 8]);
        let key = ntowf_v2(nt_hash(self.password).octets(), self.user, &utf16(self.domain));
        let proof = nt_proof(&key, challenge[24..32].try_into().unwrap(), &temp);
        let base = session_base_key(&key, &proof);
        let (exported, wrapped) = if self.key_exchange {
            ([9; 16], rc4(&base, &[9; 16]).to_vec())
        } else {
            (base, Vec::new())
        };
        let encoded = |text: &str| {
            if self.unicode {
                utf16(text)
            } else {
                text.as_bytes().to_vec()
            }
        };
        let payloads = [
            vec![0; 24],
            [proof.as_slice(), &temp].concat(),
            encoded(self.domain),
            encoded(self.user),
            encoded("WS"),
            wrapped,
        ];
        let mut message = b"NTLMSSP\0\x03\0\0\0".to_vec();
        let mic_at = if self.version { 72 } else { 64 };
        let mut offset = mic_at + 16;
        for payload in &payloads {
            message.extend_from_slice(&(payload.len() as u16).to_le_bytes());
            message.extend_from_slice(&(payload.len() as u16).to_le_bytes());
            message.extend_from_slice(&(offset as u32).to_le_bytes());
            offset += payload.len();
        }
        let flags = 0x0088_8204 | u32::from(self.unicode) | if self.key_exchange { 0x4000_0000 } else { 0 };
        message.extend_from_slice(&flags.to_le_bytes());
        message.resize(mic_at + 16, 0); // version and MIC
        message.extend(payloads.concat());
        if self.mic {
            let mic = mic(&exported, &negotiate(), challenge, &message);
            message[mic_at..mic_at + 16].copy_from_slice(&mic);
        }
        message
    }
}

/// What comes of an AUTHENTICATE message for a user whose password is `secret`.
fn judged(exchange: &mut Exchange, message: &[u8]) -> Turn {
    match exchange.respond(message) {
        Turn::Ask => {
            assert!(matches!(exchange.wanted(), Some(Wanted::NtHash { .. })));
            exchange.found(Found::NtHash {
                user: Some("alice".into()),
                hash: nt_hash("secret"),
            })
        }
        turn => turn,
    }
}

fn play(client: Client, bend: impl FnOnce(&mut Vec<u8>)) -> Turn {
    let (mut exchange, challenge) = challenged();
    let mut message = client.authenticate(&challenge);
    bend(&mut message);
    judged(&mut exchange, &message)
}

fn passes(turn: &Turn) -> bool {
    matches!(turn, Turn::Done(user) if &**user == "alice")
}

#[test]
fn a_client_with_the_password_is_let_in_with_and_without_mic_and_key_exchange() {
    for mic in [false, true] {
        for key_exchange in [false, true] {
            for unicode in [false, true] {
                let turn = play(
                    Client {
                        mic,
                        key_exchange,
                        unicode,
                        ..ALICE
                    },
                    |_| {},
                );
                assert!(passes(&turn), "mic {mic}, key exchange {key_exchange}: {turn:?}");
            }
        }
    }
    let without_version = Client {
        version: false,
        ..ALICE
    };
    assert!(passes(&play(without_version, |_| {})));
    assert!(matches!(play(without_version, |m| m[64] ^= 1), Turn::Failed));
    let domain = ["", "ANY", "other.example"];
    assert!(
        domain
            .into_iter()
            .all(|domain| passes(&play(Client { domain, ..ALICE }, |_| {})))
    );
}

#[test]
fn a_wrong_password_is_refused_with_and_without_mic() {
    for mic in [false, true] {
        let client = Client {
            password: "Secret",
            mic,
            ..ALICE
        };
        assert!(matches!(play(client, |_| {}), Turn::Failed));
    }
}

#[test]
fn a_user_that_nobody_knows_is_refused_even_with_the_right_hash() {
    let (mut exchange, challenge) = challenged();
    assert!(matches!(exchange.respond(&ALICE.authenticate(&challenge)), Turn::Ask));
    let found = Found::NtHash {
        user: None,
        hash: nt_hash("secret"),
    };
    assert!(matches!(exchange.found(found), Turn::Failed));
}

#[test]
fn a_response_to_another_challenge_is_refused() {
    let (mut exchange, mut challenge) = challenged();
    challenge[24] ^= 1;
    assert!(matches!(
        judged(&mut exchange, &ALICE.authenticate(&challenge)),
        Turn::Failed
    ));
}

#[test]
fn a_mic_that_is_announced_must_be_right() {
    assert!(matches!(play(ALICE, |message| message[72..88].fill(0)), Turn::Failed));
    let unmarked = Client { mic: false, ..ALICE };
    assert!(
        passes(&play(unmarked, |message| message[72..88].fill(7))),
        "there is none"
    );
}

#[test]
fn ntlm_v1_lm_and_anonymous_logons_are_refused() {
    let short = |message: &mut Vec<u8>| message[20..22].copy_from_slice(&24_u16.to_le_bytes());
    let none = |message: &mut Vec<u8>| message[20..22].fill(0);
    let anonymous = |message: &mut Vec<u8>| message[61] |= 8;
    let nobody = |message: &mut Vec<u8>| message[36..38].fill(0);
    let bends: [fn(&mut Vec<u8>); 4] = [short, none, anonymous, nobody];
    for (n, bend) in bends.into_iter().enumerate() {
        let client = Client { mic: false, ..ALICE };
        assert!(matches!(play(client, bend), Turn::Failed), "{n}");
    }
}

#[test]
fn offsets_beyond_the_message_into_its_fixed_part_or_into_another_field_are_refused() {
    let bends: [fn(&mut Vec<u8>); 6] = [
        |m| m[24..28].fill(0xff),
        |m| m[24..28].copy_from_slice(&60_u32.to_le_bytes()),
        |m| m[40..44].copy_from_slice(&0_u32.to_le_bytes()),
        |m| m.truncate(63),
        |m| {
            m.pop();
        },
        |m| {
            let user = m[40..44].to_vec();
            m[48..52].copy_from_slice(&user);
        },
    ];
    for (n, bend) in bends.into_iter().enumerate() {
        let turn = play(Client { mic: false, ..ALICE }, bend);
        assert!(matches!(turn, Turn::Failed), "{n}: {turn:?}");
    }
}

#[test]
fn names_must_be_text() {
    let odd = |message: &mut Vec<u8>| message[36] -= 1;
    let half = |message: &mut Vec<u8>| {
        let user = u32::from_le_bytes(message[40..44].try_into().unwrap()) as usize;
        message[user..user + 2].copy_from_slice(&[0x00, 0xd8]);
    };
    let bends: [fn(&mut Vec<u8>); 2] = [odd, half];
    for bend in bends {
        assert!(matches!(play(Client { mic: false, ..ALICE }, bend), Turn::Failed));
    }
}

#[test]
fn the_challenge_names_the_host_and_nothing_else_and_has_the_time() {
    let (_, challenge) = challenged();
    assert!(challenge.starts_with(b"NTLMSSP\0\x02\0\0\0"));
    assert_eq!(challenge[24..32], *b"\x01\x23\x45\x67\x89\xab\xcd\xef");
    let flags = u32::from_le_bytes(challenge[20..24].try_into().unwrap());
    assert_eq!(flags, 0x008a_8205);
    let time: u64 = (1_795_000_000 + 11_644_473_600) * 10_000_000 + 1_230_000;
    let info = [
        [&[2, 0, 4, 0][..], &utf16("MX")].concat(),
        [&[1, 0, 4, 0][..], &utf16("MX")].concat(),
        [&[3, 0, 28, 0][..], &utf16("mx.example.com")].concat(),
        [&[7, 0, 8, 0][..], &time.to_le_bytes()].concat(),
        vec![0; 4],
    ];
    assert_eq!(target_info(&challenge), info.concat());
    assert_eq!(challenge[48..56], [0; 8], "no version");
}

#[test]
fn what_comes_out_of_turn_ends_the_exchange() {
    let begin = |message: &[u8]| Exchange::begin(Mechanism::Ntlm, &Arc::from("mx.test"), Some(message)).1;
    for message in [
        &b""[..],
        b"NTLMSSP\0",
        b"NTLMSSP\0\x01\0\0\0\0\0\0\0",
        b"NTLMSSP\0\x03\0\0\0\x97\x82\x08\xe2",
        &[0; 5000],
    ] {
        assert!(matches!(begin(message), Turn::Failed));
    }
    let (mut exchange, _) = challenged();
    assert!(matches!(exchange.respond(&negotiate()), Turn::Failed));
    let (mut exchange, challenge) = challenged();
    assert!(matches!(
        exchange.found(Found::Password(Some("alice".into()))),
        Turn::Unavailable
    ));
    assert!(matches!(
        exchange.respond(&ALICE.authenticate(&challenge)),
        Turn::Failed
    ));
}

proptest! {
    #[test]
    fn a_response_with_one_bit_changed_is_refused(bit in 0_usize..8 * 330, key_exchange: bool, version: bool) {
        let client = Client { key_exchange, version, ..ALICE };
        let turn = play(client, |message| {
            let bit = bit % (message.len() * 8);
            message[bit / 8] ^= 1 << (bit % 8);
        });
        prop_assert!(!passes(&turn));
    }

    #[test]
    fn no_message_panics(first in any::<Vec<u8>>(), second in any::<Vec<u8>>()) {
        let junk = Exchange::begin(Mechanism::Ntlm, &Arc::from("mx.test"), Some(&first)).1;
        prop_assert!(!matches!(junk, Turn::Done(_)));
        let (mut exchange, _) = challenged();
        prop_assert!(matches!(judged(&mut exchange, &[b"NTLMSSP\0\x03\0\0\0", second.as_slice()].concat()), Turn::Failed));
    }
}
