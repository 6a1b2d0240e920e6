//! Reports, word for word and against whatever the network says.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::smtp::Form;
use crate::smtp::client::{EnhancedStatusCode, HopReply, Origin};

fn recipient(address: &str, orcpt: Option<&str>) -> Recipient {
    Recipient {
        forward_path: ForwardPath::Mailbox(Mailbox::parse(address).unwrap()),
        parameters: RcptParameters {
            notify: None,
            orcpt: orcpt.map(Box::from),
        },
    }
}

fn said(reply: HopReply, hop: &str) -> Option<Arc<Said>> {
    let hop = hop.into();
    Some(Arc::new(Said { reply, hop }))
}

fn notice(event: Event, said: Option<Arc<Said>>) -> Notice {
    Notice {
        recipient: recipient("r@b.test", None),
        event,
        said,
        tried: 1_795_221_820,
        until: 1_795_394_619,
    }
}

fn report(kind: Kind, recipients: Vec<Notice>) -> Report {
    Report {
        of: QueueId::from_number(1),
        kind,
        to: Mailbox::parse("s@a.test").unwrap(),
        ret: None,
        envid: None,
        smtputf8: false,
        arrived: 1_795_221_819,
        recipients,
    }
}

const FRAME: Frame<'static> = Frame {
    hostname: "mx.test",
    id: QueueId::from_number(33),
    unix: 1_795_221_821,
};

fn written(report: &Report, content: Option<&[u8]>) -> String {
    let returned = content.map(|content| Returned {
        content,
        form: Form::Plain,
        whole: true,
    });
    String::from_utf8(report.write(FRAME, returned)).unwrap()
}

#[test]
fn a_failure_tells_people_and_programs_what_happened() {
    let unknown = said(HopReply::heard(550, b"5.1.1 User unknown"), "hub.test");
    let report = Report {
        envid: Some("a+2Bb".into()),
        recipients: vec![Notice {
            recipient: recipient("r@b.test", Some("rfc822;R+2B1@b.test")),
            ..notice(Event::Failed, unknown)
        }],
        ..report(Kind::Failure, Vec::new())
    };
    let expected = "From: Mail Delivery System <MAILER-DAEMON@mx.test>\r\n\
        To: <s@a.test>\r\n\
        Subject: Undelivered mail returned to sender\r\n\
        Date: Sat, 21 Nov 2026 00:43:41 +0000\r\n\
        Message-ID: <0000000000011@mx.test>\r\n\
        Auto-Submitted: auto-replied\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=delivery-status;\r\n\
        \tboundary=\"postern-0000000000011\"\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        --postern-0000000000011\r\n\
        Content-Type: text/plain; charset=us-ascii\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        This is the mail server mx.test.\r\n\
        \r\n\
        Your message could not be delivered to the recipients below, and is not\r\n\
        tried again. What was said may tell why.\r\n\
        \r\n\
        \x20 <r@b.test>\r\n\
        \x20   refused\r\n\
        \x20   hub.test: 550 5.1.1 User unknown\r\n\
        \r\n\
        --postern-0000000000011\r\n\
        Content-Type: message/delivery-status\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        Original-Envelope-Id: a+b\r\n\
        Reporting-MTA: dns; mx.test\r\n\
        Arrival-Date: Sat, 21 Nov 2026 00:43:39 +0000\r\n\
        \r\n\
        Original-Recipient: rfc822; R+1@b.test\r\n\
        Final-Recipient: rfc822; r@b.test\r\n\
        Action: failed\r\n\
        Status: 5.1.1\r\n\
        Remote-MTA: dns; hub.test\r\n\
        Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\
        Last-Attempt-Date: Sat, 21 Nov 2026 00:43:40 +0000\r\n\
        \r\n\
        --postern-0000000000011\r\n\
        Content-Type: text/rfc822-headers\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        Subject: x\r\n\
        \r\n\
        --postern-0000000000011--\r\n";
    assert_eq!(written(&report, Some(b"Subject: x\r\n\r\nbody\r\n")), expected);
}

#[test]
fn each_event_has_its_action_and_a_status_of_its_class() {
    let later = || said(HopReply::heard(451, b"4.3.0 Later"), "hub.test");
    let nobody = || {
        let status = EnhancedStatusCode::new(4, 4, 1);
        said(HopReply::ours(Origin::NoConnection, 451, status, "Nobody"), "")
    };
    let taken = || said(HopReply::heard(250, b"OK"), "hub.test");
    for (kind, event, said, expected) in [
        (Kind::Failure, Event::Failed, later(), "Action: failed|Status: 5.0.0"),
        (Kind::Failure, Event::Expired, later(), "Action: failed|Status: 4.4.7"),
        (Kind::Failure, Event::Expired, None, "Action: failed|Status: 4.4.7"),
        (Kind::Delay, Event::Delayed, nobody(), "Action: delayed|Status: 4.4.1"),
        (Kind::Success, Event::Relayed, taken(), "Action: relayed|Status: 2.0.0"),
        (
            Kind::Success,
            Event::Delivered,
            taken(),
            "Action: delivered|Status: 2.0.0",
        ),
    ] {
        let report = report(kind, vec![notice(event, said)]);
        let text = written(&report, None);
        assert!(text.contains(&expected.replace('|', "\r\n")), "{text}");
        let until = text.contains("\r\nWill-Retry-Until: Mon, 23 Nov 2026 00:43:39 +0000\r\n");
        assert_eq!(until, event == Event::Delayed);
    }
    let text = written(&report(Kind::Delay, vec![notice(Event::Delayed, nobody())]), None);
    assert!(text.contains("Diagnostic-Code: x-postern; 451 4.4.1 Nobody\r\n"));
    assert!(!text.contains("Remote-MTA"));
}

#[test]
fn the_whole_comes_back_only_with_a_failure_and_where_it_was_asked_for() {
    let content = b"Subject: x\r\n\r\nbody\r\n";
    for (kind, ret, whole) in [
        (Kind::Failure, Some(Ret::Full), true),
        (Kind::Failure, Some(Ret::Headers), false),
        (Kind::Failure, None, false),
        (Kind::Delay, Some(Ret::Full), false),
    ] {
        let report = Report {
            ret,
            ..report(kind, vec![notice(Event::Failed, None)])
        };
        let text = written(&report, Some(content));
        assert_eq!(text.contains("Content-Type: message/rfc822\r\n"), whole);
        assert_eq!(text.contains("\r\nbody\r\n"), whole);
    }
}

#[test]
fn a_boundary_does_not_stand_in_what_comes_back() {
    let content = b"a: --postern-0000000000011\r\n--postern-0000000000011--: x\r\n";
    let text = written(&report(Kind::Failure, Vec::new()), Some(content));
    assert!(text.contains("boundary=\"postern-0000000000011---\""), "{text}");
}

#[test]
fn addresses_beyond_ascii_are_spelled_out_unless_the_sender_has_one() {
    let about = |to: &str| Report {
        to: Mailbox::parse(to).unwrap(),
        smtputf8: true,
        recipients: vec![Notice {
            recipient: recipient("r\u{e9}@b.test", Some("utf-8;r\u{e9}@b.test")),
            ..notice(Event::Failed, None)
        }],
        ..report(Kind::Failure, Vec::new())
    };
    let content = Some("Subject: \u{e9}\r\n\r\n".as_bytes());
    let seven = about("s@a.test");
    let text = written(&seven, content);
    assert!(text.is_ascii() && !seven.needs_utf8() && !seven.envelope().mail.smtputf8);
    assert!(text.contains("Original-Recipient: utf-8; r\\x{E9}@b.test\r\nFinal-Recipient: utf-8; r\\x{E9}@b.test\r\n"));
    assert!(text.contains("Content-Type: message/delivery-status\r\n"));
    assert!(text.contains("Content-Type: message/global-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n"));
    let eight = about("s\u{e9}@a.test");
    let text = written(&eight, content);
    assert!(eight.needs_utf8() && eight.envelope().mail.smtputf8);
    assert!(text.contains("Final-Recipient: utf-8; r\u{e9}@b.test\r\n"));
    assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
    assert!(text.contains("Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n"));
}

proptest! {
    #[test]
    fn whatever_the_network_said_the_report_is_in_order(
        code in 400_u16..600, text: Vec<u8>, hop in ".{0,300}", orcpt in ".{0,600}", envid in ".{0,120}", content: Vec<u8>,
    ) {
        let said = said(HopReply::heard(code, &text), &hop);
        let report = Report {
            envid: Some(envid.as_str().into()),
            recipients: vec![Notice {
                recipient: recipient("r@b.test", Some(&orcpt)),
                ..notice(Event::Failed, said)
            }],
            ..report(Kind::Failure, Vec::new())
        };
        let text = report.write(FRAME, Some(Returned { content: &content, form: Form::Plain, whole: true }));
        let mut parts = 0;
        let mut finals = 0;
        for line in text.split(|&b| b == b'\n') {
            prop_assert!(line.is_empty() || line.ends_with(b"\r"));
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            prop_assert!(line.len() <= 998 && !line.contains(&b'\r') && !line.contains(&0));
            parts += usize::from(line.starts_with(b"--postern-0000000000011"));
            finals += usize::from(line.starts_with(b"Final-Recipient:"));
        }
        prop_assert_eq!((parts, finals), (4, 1));
    }
}
