//! A reload gives other routes to what is queued.

use super::hop::Hop;
use super::*;
use crate::edge::free_address;

#[test]
fn queued_mail_goes_by_the_routes_of_the_new_configuration() {
    let before = config(&format!("smtp://{}", free_address()));
    let edge = Edge::start(&before);
    let text = "Subject: x\r\n\r\nHello.\r\n";
    edge.hello()
        .accepted("me@client.test", &["you@b.test", "her@c.test"], text);
    deferred(&edge, 1);

    let (first, second) = (Hop::at(free_address()), Hop::at(free_address()));
    let route = format!(
        "[[next_hop]]\ndomains = [\"c.test\"]\nto = [\"smtp://{}\"]\ntls = \"off\"\n",
        second.address
    );
    let after = config(&format!("smtp://{}", first.address)).replacen("[[next_hop]]", &(route + "[[next_hop]]"), 1);
    let admin = edge.admin().unwrap().to_string();
    edge.home().write("postern.toml", &after.replace("ADMIN", &admin));
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");

    // A shard may take the new configuration over a moment later than the line says.
    assert!(eventually(|| {
        ok(&edge, &["retry", "--all"]);
        listed(&edge).is_empty()
    }));
    let (first, second) = (first.messages(), second.messages());
    assert_eq!((first.len(), second.len()), (1, 1), "{first:?} {second:?}");
    assert!(first[0].starts_with("RCPT TO:<you@b.test>"), "{first:?}");
    assert!(second[0].starts_with("RCPT TO:<her@c.test>"), "{second:?}");
}
