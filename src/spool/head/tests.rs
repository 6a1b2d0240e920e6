//! Heads and envelopes as octets and back.

use super::*;
use proptest::prelude::*;

fn mailbox() -> impl Strategy<Value = Mailbox> {
    prop_oneof![
        "[a-z]{1,20}(\\.[a-z0-9]{1,9}){0,2}@[a-z]{1,12}\\.test",
        "\"[ a-z()<>@,;:]{1,20}\"@[a-z]{1,12}\\.test",
        "[a-z\u{e0}-\u{f6}]{1,12}@b\u{fc}cher\\.test",
        Just("a@[192.0.2.7]".to_owned()),
        Just("a@[IPv6:2001:db8::1]".to_owned()),
    ]
    .prop_map(|text| Mailbox::parse(&text).unwrap())
}

fn optional_text() -> impl Strategy<Value = Option<Box<str>>> {
    prop::option::of("[!-~]{0,30}".prop_map(Box::from))
}

fn mail() -> impl Strategy<Value = MailParameters> {
    let body = prop_oneof![Just(Body::SevenBit), Just(Body::EightBitMime), Just(Body::BinaryMime)];
    let ret = prop::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]);
    (
        any::<Option<u64>>(),
        body,
        ret,
        optional_text(),
        any::<bool>(),
        optional_text(),
    )
        .prop_map(|(size, body, ret, envid, smtputf8, auth)| MailParameters {
            size,
            body,
            ret,
            envid,
            smtputf8,
            auth,
        })
}

fn recipients() -> impl Strategy<Value = Vec<Recipient>> {
    let path = prop_oneof![
        1 => Just(ForwardPath::Postmaster),
        4 => mailbox().prop_map(ForwardPath::Mailbox),
    ];
    let on = any::<(bool, bool, bool)>().prop_map(|(success, failure, delay)| Notify::On {
        success,
        failure,
        delay,
    });
    let notify = prop::option::of(prop_oneof![Just(Notify::Never), on]);
    let one = (path, notify, optional_text()).prop_map(|(forward_path, notify, orcpt)| Recipient {
        forward_path,
        parameters: RcptParameters { notify, orcpt },
    });
    prop::collection::vec(one, 0..6)
}

fn heads() -> impl Strategy<Value = Head<'static>> {
    let reverse_path = prop_oneof![
        1 => Just(ReversePath::Null),
        4 => mailbox().prop_map(ReversePath::Mailbox),
    ];
    let envelope = (reverse_path, mail(), recipients()).prop_map(|(reverse_path, mail, recipients)| Envelope {
        reverse_path,
        mail,
        recipients,
    });
    let form = prop_oneof![Just(Form::Dotted), Just(Form::Plain)];
    let facts = (
        any::<u64>(),
        any::<u64>(),
        any::<Option<IpAddr>>(),
        ".{0,20}",
        any::<Option<String>>(),
    );
    (envelope, prop::collection::vec(any::<u8>(), 0..200), form, facts).prop_map(
        |(envelope, fields, form, (arrived, session, client, hello, user))| Head {
            envelope: Cow::Owned(envelope),
            fields: Cow::Owned(fields),
            form,
            arrived,
            session: QueueId::from_number(session),
            client,
            hello: Cow::Owned(hello),
            user: user.map(Cow::Owned),
        },
    )
}

proptest! {
    #[test]
    fn a_head_is_read_as_it_was_written_and_half_of_it_is_none(head in heads()) {
        let octets = head.encode();
        let read = Head::decode(&octets);
        prop_assert_eq!(read.as_ref(), Some(&head));
        for end in 0..octets.len() {
            prop_assert_eq!(Head::decode(&octets[..end]), None);
        }
    }

    #[test]
    fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::decode(&octets);
    }

    #[test]
    fn no_change_of_a_head_panics(head in heads(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut octets = head.encode();
        let at = at.index(octets.len());
        octets[at] = octet;
        if let Some(read) = Head::decode(&octets) {
            for recipient in &read.envelope.recipients {
                prop_assert!(!recipient.forward_path.as_str().contains(['\r', '\n']));
            }
        }
    }
}

#[test]
fn a_count_of_recipients_that_is_not_true_allocates_nothing() {
    let head = Head {
        envelope: Cow::Owned(Envelope {
            reverse_path: ReversePath::Null,
            mail: MailParameters::default(),
            recipients: Vec::new(),
        }),
        fields: Cow::Borrowed(b""),
        form: Form::Plain,
        arrived: 0,
        session: QueueId::from_number(0),
        client: None,
        hello: Cow::Borrowed(""),
        user: None,
    };
    let mut octets = head.encode();
    assert_eq!(octets.pop(), Some(0));
    number(&mut octets, u64::MAX);
    assert_eq!(Head::decode(&octets), None);
}
