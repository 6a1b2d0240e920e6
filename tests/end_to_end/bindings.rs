//! Several bindings, several addresses, both families.

use crate::client::Client;
use crate::edge::Edge;
use crate::settings::Settings;

#[test]
fn each_binding_has_its_own_addresses_role_limits_and_extensions() {
    let settings = Settings::new()
        .binding(
            "name = \"six\"\naddress = [\"[::1]:0\"]\nextensions_off = [\"CHUNKING\", \"BINARYMIME\", \"SMTPUTF8\"]\n\
             [binding.limits]\nmax_message_size = \"1KiB\"\nmax_recipients = 1",
        )
        .binding("name = \"four\"\naddress = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\nrole = \"relay\"");
    let edge = Edge::start(&settings.toml());
    let ([six], [first, second]) = (&edge.addresses("six")[..], &edge.addresses("four")[..]) else {
        panic!("{:?}", edge.log())
    };
    assert!(six.is_ipv6());
    assert_eq!(
        (first.ip().to_string(), second.ip().to_string()),
        ("127.0.0.1".into(), "127.0.0.2".into())
    );

    let mut client = Client::connect(*six);
    client.expect_reply("220 ");
    let keywords = client.command("EHLO client.test", "250-mx.example.com Hello ::1\r\n");
    assert!(
        keywords.contains("SIZE 1024") && keywords.contains("PIPELINING"),
        "{keywords}"
    );
    assert!(
        !["CHUNKING", "BINARYMIME", "SMTPUTF8"]
            .iter()
            .any(|off| keywords.contains(off)),
        "{keywords}"
    );
    client.command("MAIL FROM:<a@client.test>", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    client.command("RCPT TO:<c@example.com>", "452 4.5.3 Too many recipients");
    assert!(client.data("x\r\n").starts_with("250 "));
    let mail = String::from_utf8(edge.mail("mail").remove(0)).unwrap();
    assert!(mail.contains("Received: from client.test ([IPv6:::1])\n"), "{mail}");

    client.command("QUIT", "221 ");
    for address in [first, second] {
        let mut client = Client::connect(*address);
        client.expect_reply("220 ");
        let keywords = client.command("EHLO client.test", "250-mx.example.com Hello 127.0.0.1\r\n");
        assert!(
            keywords.contains("SIZE 10485760") && keywords.contains("CHUNKING"),
            "{keywords}"
        );
        client.accepted("a@client.test", &["b@example.com", "c@example.com"], "x\r\n");
    }
    for binding in ["six", "four"] {
        edge.wait_for(&format!("session .. binding={binding} "));
    }
}
