//! The server's side of NTLM version 2, from [MS-NLMP]: a challenge, and whether an answer proves the password.

use hmac::{Hmac, KeyInit, Mac};
use md4::{Digest, Md4};
use md5::Md5;

const SIGNATURE: &[u8] = b"NTLMSSP\0";
const CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

/// Section 2.2.1.1.
pub fn is_negotiate(message: &[u8]) -> bool {
    message.starts_with(SIGNATURE) && number(message, 8) == 1
}

/// Section 2.2.1.2, with a target name, and target information of its NetBIOS domain name and the end of the list.
pub fn challenge() -> Vec<u8> {
    let name = utf16("EDGE");
    let information = [&[2, 0, 8, 0][..], &name, &[0; 4]].concat();
    let (name_at, information_at) = (48_u32, 48 + name.len() as u32);
    let lengths = |field: &[u8]| [(field.len() as u16).to_le_bytes(), (field.len() as u16).to_le_bytes()].concat();
    let flags = 0x0088_8205_u32;
    [
        SIGNATURE,
        &2_u32.to_le_bytes(),
        &lengths(&name),
        &name_at.to_le_bytes(),
        &flags.to_le_bytes(),
        &CHALLENGE,
        &[0; 8],
        &lengths(&information),
        &information_at.to_le_bytes(),
        &name,
        &information,
    ]
    .concat()
}

/// Section 3.3.2: whether the NT response of an AUTHENTICATE message (section 2.2.1.3) is made with the password, for this user of
/// this domain, over our challenge.
pub fn proves(message: &[u8], user: &str, domain: &str, password: &str) -> bool {
    if !message.starts_with(SIGNATURE) || number(message, 8) != 3 {
        return false;
    }
    let (response, told_domain, told_user) = (field(message, 20), field(message, 28), field(message, 36));
    if told_user != utf16(user) || told_domain != utf16(domain) || response.len() < 16 + 28 {
        return false;
    }
    let hash = Md4::digest(utf16(password));
    let key = keyed(&hash, &[utf16(&user.to_uppercase()), utf16(domain)].concat());
    let (proof, blob) = response.split_at(16);
    // The blob repeats the target information of the challenge (section 2.2.2.7).
    let information = field(&challenge(), 40).to_vec();
    blob.starts_with(&[1, 1])
        && blob[28..].starts_with(&information)
        && proof == keyed(&key, &[&CHALLENGE[..], blob].concat())
}

fn field(message: &[u8], at: usize) -> &[u8] {
    let length = usize::from(u16::from_le_bytes([message[at], message[at + 1]]));
    let offset = number(message, at + 4) as usize;
    &message[offset..offset + length]
}

fn number(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(message[at..at + 4].try_into().unwrap())
}

fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Md5>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The values of [MS-NLMP] section 4.2.4: a proof that the document made is taken, any other is not.
#[test]
fn the_proof_of_the_document_is_taken() {
    let key = keyed(
        &Md4::digest(utf16("Password")),
        &[utf16("USER"), utf16("Domain")].concat(),
    );
    let blob = [
        &[1, 1, 0, 0, 0, 0, 0, 0][..],
        &[0; 8],
        &[0xaa; 8],
        &[0; 4],
        &[2, 0, 0x0c, 0],
        &utf16("Domain"),
        &[1, 0, 0x0c, 0],
        &utf16("Server"),
        &[0; 4],
        &[0; 4],
    ]
    .concat();
    let proof = keyed(&key, &[&CHALLENGE[..], &blob].concat());
    let expected = [
        0x68, 0xcd, 0x0a, 0xb8, 0x51, 0xe5, 0x1c, 0x96, 0xaa, 0xbc, 0x92, 0x7b, 0xeb, 0xef, 0x6a, 0x1c,
    ];
    assert_eq!(proof, expected);
}
