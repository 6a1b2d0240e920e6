//! Each kind of mistake, refused in its place with what was found and what was expected.

use super::*;

#[test]
fn text_that_is_no_toml_is_refused_at_the_place_where_it_ceases_to_be() {
    refuses("shards = = 3", "1:10: shards: ", &["expected"]);
    refuses(
        "shards = 3\nshards = 4",
        "2:1: shards: ",
        &["duplicate key", "expected each key once"],
    );
    refuses("[log]\nlevel = \"info\nformat = 1", "2:14: log.level: ", &["expected"]);
    refuses("[limits\ntarpit = \"1s\"", "1:8: limits: ", &["expected"]);
    refuses("hello", "1:", &["expected"]);
    refuses(
        "[access]\nallow = [\"::1\"",
        "2:15: access.allow: ",
        &["the end of the file", "expected"],
    );
}

#[test]
fn a_section_of_the_wrong_shape_is_refused() {
    refuses(
        "[binding]\nname = \"x\"",
        "1:1: binding: ",
        &["expected sections `[[binding]]`"],
    );
    refuses("[[limits]]", "1:1: limits: ", &["expected a section `[limits]`"]);
    refuses(
        "next_hop = [1]",
        "1:13: next_hop: ",
        &["the integer 1", "expected a section `[[next_hop]]`"],
    );
    refuses(
        "role = \"relay\"",
        "1:1: role: ",
        &["unknown key", "belongs into `binding`"],
    );
    refuses(
        "[log]\nhostname = \"a.example\"",
        "2:1: log.hostname: ",
        &["unknown key", "at the top"],
    );
}

#[test]
fn names_that_cannot_be_names_are_refused() {
    refuses(
        "hostname = \"a b\"",
        "1:12: hostname: ",
        &["found \"a b\"", "expected a domain name"],
    );
    refuses(
        "hostname = \"\"",
        "1:12: hostname: ",
        &["found \"\"", "expected a domain name"],
    );
    refuses("hostname = \"192.0.2.1\"", "1:12: hostname: ", &["not an address"]);
    refuses("edition = \"2014\"", "1:11: edition: ", &["\"2021\" or \"2011\""]);
    refuses("edition = 2021", "1:11: edition: ", &["the integer 2021", "a string"]);
    refuses("data_dir = \"\"", "1:12: data_dir: ", &["expected a path"]);
    refuses(
        "shards = 1025",
        "1:10: shards: ",
        &["the integer 1025", "from 0 to 1024"],
    );
    refuses(
        "[domains]\naccepted = [\"a.example\", \"a..b\"]",
        "2:26: domains.accepted: ",
        &["\"a..b\""],
    );
    refuses(
        "[access]\nblock = [\"10.0.0.0/33\"]",
        "2:10: access.block: ",
        &["\"10.0.0.0/33\"", "192.0.2.0/24"],
    );
    refuses(
        "[access]\nblock_text = \"a\\r\\nb\"",
        "2:14: access.block_text: ",
        &["printable ASCII"],
    );
    refuses(
        "[access]\ndns_servers = [\"ns.example\"]",
        "2:16: access.dns_servers: ",
        &["expected an address"],
    );
    refuses(
        "[admin]\nlisten = \"8025\"",
        "2:10: admin.listen: ",
        &["expected an address and port"],
    );
    refuses("[fleet]\nredis = \"http://x\"", "2:9: fleet.redis: ", &["redis://"]);
}

#[test]
fn bindings_that_contradict_each_other_or_themselves_are_refused() {
    let one = |line: &str| format!("[[binding]]\n{line}");
    refuses(&one("name = \"\""), "2:8: binding.name: ", &["a name of 1 to 64"]);
    refuses(
        &one("address = [\"127.0.0.1\"]"),
        "2:12: binding.address: ",
        &["did you mean \"127.0.0.1:25\"?"],
    );
    refuses(
        &one("address = []"),
        "2:11: binding.address: ",
        &["an empty list", "at least one"],
    );
    refuses(&one("address = \"[::1]:25\""), "2:11: binding.address: ", &["a list"]);
    refuses(&one("tls = \"starttls\""), "2:7: binding.tls: ", &["a section `[tls]`"]);
    refuses(
        &one("require_tls = true"),
        "2:15: binding.require_tls: ",
        &["a section `[tls]`"],
    );
    refuses(
        &one("require_tls = true\ntls = \"off\"\n[tls]\nself_signed = true"),
        "2:15: ",
        &["starttls"],
    );
    refuses(
        &one("extensions_off = [\"PIPELINING\", \"FOO\"]"),
        "2:33: binding.extensions_off: ",
        &["CHUNKING"],
    );
    for always in ["SIZE", "DSN", "ENHANCEDSTATUSCODES"] {
        let said = ["always advertised"];
        refuses(
            &one(&format!("extensions_off = [\"{always}\"]")),
            "2:19: binding.extensions_off: ",
            &said,
        );
    }
    refuses(&one("auth = [\"CRAM-MD5\"]"), "2:9: binding.auth: ", &["SCRAM-SHA-256"]);
    refuses(
        &one("auth = [\"NTLM\", \"LOGIN\", \"NTLM\"]"),
        "2:26: binding.auth: ",
        &["once"],
    );
    refuses(
        &one("name = \"a\"\n[[binding]]\nname = \"a\"\naddress = [\"[::1]:25\"]"),
        "4:8: binding.name: ",
        &["no other"],
    );
    refuses(
        &one("[[binding]]\naddress = [\"127.0.0.1:2525\"]"),
        "3:12: binding.address: ",
        &["nowhere else"],
    );
    refuses(
        &one("address = [\"127.0.0.1:2525\"]\n[[binding]]"),
        "3:1: binding: ",
        &["no `address`"],
    );
    refuses(
        &one("address = [\"[::1]:25\"]\n[admin]\nlisten = \"[::1]:25\""),
        "4:10: admin.listen: ",
        &["nowhere else"],
    );
    let ports_zero = one("address = [\"[::1]:0\", \"[::1]:0\"]\n[domains]\naccepted = [\"*\"]");
    assert_eq!(check(ports_zero).code, Some(0));
}

#[test]
fn routes_and_certificates_that_lead_nowhere_are_refused() {
    let one = |line: &str| format!("[[next_hop]]\n{line}");
    refuses(
        &one("to = [\"http://x.example\"]"),
        "2:7: next_hop.to: ",
        &["smtp://", "lmtp+unix://", "maildir:"],
    );
    refuses(&one("to = []"), "2:6: next_hop.to: ", &["at least one"]);
    refuses(
        &one("to = [\"maildir:{user}\"]"),
        "2:7: next_hop.to: ",
        &["{local} and {domain}"],
    );
    refuses(
        &one("domains = [\"*.example\"]"),
        "2:12: next_hop.domains: ",
        &["stands alone"],
    );
    refuses(
        &one("password_file = \"p\""),
        "2:17: next_hop.password_file: ",
        &["without `username`"],
    );
    refuses(
        &one("max_connections = 0"),
        "2:19: next_hop.max_connections: ",
        &["from 1"],
    );
    refuses(
        "[tls]\ncertificate = \"c\"",
        "2:15: tls.certificate: ",
        &["without `key`"],
    );
    refuses(
        "[tls]\ncertificate = \"c\"\nself_signed = true",
        "2:15: tls.certificate: ",
        &["self_signed"],
    );
    refuses("[tls]\nself_signed = false", "1:1: tls: ", &["`certificate` and `key`"]);
    refuses(
        &one("tls = \"opportunistic\"\ntls_ca = \"ca.pem\""),
        "3:10: next_hop.tls_ca: ",
        &["`tls = \"required\"`", "nothing is verified otherwise"],
    );
    refuses(&one("tls_ca = \"\""), "2:10: next_hop.tls_ca: ", &["a path"]);
    refuses(
        &one("tls = \"off\"\ntls_name = \"a.example\""),
        "3:12: next_hop.tls_name: ",
        &["beside `tls = \"off\"`"],
    );
    refuses(
        &one("to = [\"mx:\"]\ntls_name = \"a.example\""),
        "3:12: next_hop.tls_name: ",
        &["beside \"mx:\"", "a name of its own"],
    );
    refuses(
        &one("to = [\"smtp://h\"]\ntls_name = \"192.0.2.1\""),
        "3:12: next_hop.tls_name: ",
        &["not an address"],
    );
    let more = |lines: &str| format!("[tls]\nself_signed = true\n[[tls.certificates]]\n{lines}");
    refuses(
        &more("certificate = \"c\""),
        "4:15: tls.certificates.certificate: ",
        &["both"],
    );
    refuses(&more("key = \"k\""), "4:7: tls.certificates.key: ", &["both"]);
    refuses(&more(""), "3:1: tls.certificates: ", &["`certificate` and `key`"]);
    refuses(
        &more("certificate = 1\nkey = \"k\""),
        "4:15: tls.certificates.certificate: ",
        &["the integer 1", "a path"],
    );
    refuses(
        &more("certificate = \"c\"\nkey = \"k\"\nname = \"x\""),
        "6:1: tls.certificates.name: ",
        &["unknown key"],
    );
    refuses(
        "[[tls.certificates]]\ncertificate = \"c\"\nkey = \"k\"",
        "1:3: tls: ",
        &["found neither"],
    );
    refuses(
        "[limits]\ntls_session_rate = 60001",
        "2:20: limits.tls_session_rate: ",
        &["from 0 to 60000"],
    );
    refuses("[queue]\nretry = []", "2:9: queue.retry: ", &["at least one"]);
    refuses(
        "[queue]\nexpire = \"1y\"",
        "2:10: queue.expire: ",
        &["units are d, h, m, s, ms"],
    );
    refuses("[queue]\nexpire = \"-1d\"", "2:10: queue.expire: ", &["not negative"]);
    refuses(
        "[queue]\nmemory = \"10 sheets\"",
        "2:10: queue.memory: ",
        &["units are"],
    );
}
