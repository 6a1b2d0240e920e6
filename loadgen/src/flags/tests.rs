//! Flags as they are typed, and what becomes of them. Pure.

use clap::CommandFactory;

use super::*;

#[test]
fn the_flags_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn a_target_elsewhere_needs_the_users_word() {
    let parse = |more: &[&str]| Cli::try_parse_from(["loadgen"].iter().chain(more)).unwrap().run;
    // The clients that misbehave as well as those that do not.
    let bad = parse(&["192.0.2.1:25", "--abuse", "garbage"]);
    assert!(bad.load.check(bad.target).unwrap_err().contains("--target-is-mine"));
    for here in ["127.0.0.1:25", "127.9.9.9:25", "[::1]:25"] {
        let run = parse(&[here]);
        assert!(run.load.check(run.target).is_ok());
    }
    for elsewhere in [
        "192.0.2.1:25",
        "[2001:db8::1]:25",
        "0.0.0.0:25",
        "[::ffff:192.0.2.1]:25",
    ] {
        let run = parse(&[elsewhere]);
        assert!(run.load.check(run.target).is_err());
        let run = parse(&[elsewhere, "--target-is-mine"]);
        assert!(run.load.check(run.target).is_ok());
    }
}

#[test]
fn durations_have_a_unit() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
    assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    for wrong in ["", "s", "-1s", "1d", "99999999999999999999s", "25h"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn sources_are_addresses_and_ranges() {
    let Sources(addresses) = "127.0.0.9,127.0.0.255-127.0.1.1".parse().unwrap();
    let expected: Vec<IpAddr> = ["127.0.0.9", "127.0.0.255", "127.0.1.0", "127.0.1.1"]
        .iter()
        .map(|a| a.parse().unwrap())
        .collect();
    assert_eq!(addresses, expected);
    for wrong in ["", "x", "127.0.0.2-127.0.0.1", "0.0.0.0-255.255.255.255", "::1-::2"] {
        assert!(wrong.parse::<Sources>().is_err(), "{wrong}");
    }
}

#[test]
fn one_connection_for_each_message_spreads_over_source_addresses() {
    let run = Cli::try_parse_from(["loadgen", "--per-connection", "1"]).unwrap().run;
    assert_eq!(run.load.sources_for(run.target).unwrap().len(), 19);
    assert_eq!(run.load.sources_for("[::1]:25".parse().unwrap()), Ok(Vec::new()));
    let run = Cli::try_parse_from(["loadgen"]).unwrap().run;
    assert_eq!(run.load.sources_for(run.target), Ok(Vec::new()));
}

#[test]
fn a_contender_has_a_name_an_address_and_perhaps_processes() {
    let contender: Contender = "sink=127.0.0.1:2600=12,13".parse().unwrap();
    assert_eq!((contender.name.as_str(), contender.pids), ("sink", vec![12, 13]));
    assert!("sink=[::1]:2600".parse::<Contender>().unwrap().pids.is_empty());
    for wrong in ["sink", "sink=host:25", "sink=127.0.0.1:25=x", "a=127.0.0.1:25=1=2"] {
        assert!(wrong.parse::<Contender>().is_err(), "{wrong}");
    }
}

#[test]
fn an_address_cannot_carry_a_second_command() {
    for wrong in ["a@b>\r\nRSET", "a b", "a@b\n", "<a@b>"] {
        assert!(Cli::try_parse_from(["loadgen", "--from", wrong]).is_err(), "{wrong:?}");
    }
}

/// A line as a shell would take it apart, as far as the manual needs it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_of_the_readme_is_understood() {
    let readme = include_str!("../../README.md");
    let table = readme.lines().skip_while(|line| !line.starts_with("| To see"));
    let mut understood = 0;
    for line in table.take_while(|line| line.starts_with('|')) {
        for command in line.split('`').skip(1).step_by(2) {
            let command = command.trim_end_matches(" &").replace("PID", "1");
            if !command.starts_with("loadgen") && !command.starts_with("--") {
                continue;
            }
            let mut arguments = words(&command);
            if command.starts_with("--") {
                arguments.insert(0, "loadgen".into());
                // A part of a command leaves out what goes with it.
                if command.starts_with("--bdat-chunks") || command == "--scenario list" {
                    continue;
                }
            }
            let arguments = arguments.into_iter().map(Into::into).collect();
            let expanded = crate::scenario::expand(arguments).unwrap_or_else(|why| panic!("{command}: {why}"));
            Cli::try_parse_from(expanded.arguments).unwrap_or_else(|error| panic!("{command}: {error}"));
            understood += 1;
        }
    }
    assert!(understood > 30, "{understood}");
}

#[test]
fn every_example_of_the_manual_is_understood() {
    let mut understood = 0;
    for line in EXAMPLES.lines().filter(|line| line.starts_with("  loadgen")) {
        // What it is about stands behind a gap.
        let commands = line
            .trim()
            .split("   ")
            .next()
            .unwrap()
            .replace("$(pidof postern)", "1")
            .replace("PID", "1");
        for command in commands.split(" && ") {
            let arguments = words(command).into_iter().map(Into::into).collect();
            let expanded = crate::scenario::expand(arguments).unwrap_or_else(|why| panic!("{command}: {why}"));
            Cli::try_parse_from(expanded.arguments).unwrap_or_else(|error| panic!("{command}: {error}"));
            understood += 1;
        }
    }
    assert_eq!(understood, 8);
}
