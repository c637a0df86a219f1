//! `orchestrator chain`, as an operator sees it.

use sp_core::crypto::Ss58Codec as _;
use sp_core::{Pair as _, sr25519};

use crate::cli::operator::Operator;
use crate::test_chain::metadata::{OLD, runtime};
use crate::test_chain::{Fault, TestChain, World, hotkey};

fn address(byte: u8) -> String {
    hotkey(byte).to_ss58check()
}

fn local(chain: &TestChain) -> Vec<String> {
    let fixed = ["--network", "local", "--netuid", "39", "--endpoint"].map(str::to_owned);
    fixed.into_iter().chain([chain.url()]).collect()
}

fn arguments<'a>(verb: &[&'a str], chain: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let chain = chain.iter().map(String::as_str);
    [&["chain"], verb].concat().into_iter().chain(chain).chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn the_status_says_what_the_chain_says_and_how_old_that_is() {
    let operator = Operator::new();
    let mut chain = TestChain::start(runtime(300, OLD)).await;
    let which = local(&chain);
    let key = address(2);
    let status = arguments(&["status"], &which, &["--hotkey", &key]);
    let words = operator.run(status.iter().copied()).await.expect(0).stdout;
    for said in [
        "local through ws://127.0.0.1",
        "100 finalized, 0 more",
        "39: 3 neurons, 2 of them validators",
        "registered, slot 1",
        "203.0.113.5:8091, announced at block 7",
    ] {
        assert!(words.contains(said), "{said} in\n{words}");
    }
    let json = operator.run(status.iter().copied().chain(["--json"])).await.expect(0);
    let document = &json.json_lines()[0];
    assert_eq!(document["head"]["spec_version"], 300);
    assert_eq!(document["metagraph"]["validators"], 2);
    assert_eq!(document["registration"]["uid"], 1);
    assert_eq!(document["registration"]["hotkey"], key.as_str());
    assert_eq!(document["missing"], serde_json::json!([]));

    chain.stop().await;
    let failed = operator.run(status.iter().copied().chain(["--json"])).await.expect(5);
    let document = &failed.json_lines()[0];
    assert_eq!(document["reason"], "chain");
    let message = document["message"].as_str().unwrap();
    assert!(message.contains("kept is the metagraph of block 100"), "{message}");
    let nothing = Operator::new().run(status.iter().copied()).await.expect(5);
    assert!(nothing.stderr.contains("no metagraph is kept"), "{}", nothing.stderr);
}

#[tokio::test]
async fn a_dry_run_shows_the_call_and_sends_nothing() {
    let operator = Operator::new();
    let chain = TestChain::start(runtime(300, OLD)).await;
    let (which, key) = (local(&chain), address(1));
    let dry = ["--dry-run", "--hotkey", &key, "--ip", "8.8.8.8"];
    let run = arguments(&["serve-axon"], &which, &dry);
    let shown = operator.run(run.iter().copied()).await.expect(0).stdout;
    assert!(shown.contains("serve_axon 8.8.8.8:8091"), "{shown}");
    // Pallet, call, subnet; version; address; port; kind, protocol and two zeros.
    let call = "0x0704".to_owned()
        + "2700"
        + "e8030000"
        + "08080808000000000000000000000000"
        + "9b1f"
        + "04040000";
    assert!(shown.contains(&call), "{shown}");
    assert!(shown.ends_with("it would be sent\n"), "{shown}");
    let json = operator.run(run.iter().copied().chain(["--json"])).await.expect(0);
    let document = &json.json_lines()[0];
    assert_eq!(document["would_send"], true);
    assert_eq!(document["announcement"]["call_data"], call.as_str());
    assert_eq!(document["announcement"]["checks"].as_array().unwrap().len(), 5);
    // What is there already.
    let other = address(2);
    let same = ["--dry-run", "--hotkey", &other, "--ip", "203.0.113.5"];
    let run = arguments(&["serve-axon"], &which, &same);
    let shown = operator.run(run.iter().copied()).await.expect(0).stdout;
    assert!(shown.ends_with("nothing would be sent\n"), "{shown}");
    assert_eq!(chain.asked("author_submitAndWatchExtrinsic"), 0);
    assert_eq!(chain.asked("AccountNonceApi_account_nonce"), 0);
}

#[tokio::test]
async fn what_speaks_against_an_announcement_has_a_reason_and_a_status() {
    let operator = Operator::new();
    let chain = TestChain::with(World::new(runtime(300, OLD)).finney()).await;
    let finney: Vec<String> = ["--endpoint".to_owned(), chain.url()].into_iter().collect();
    let (first, stranger) = (address(1), address(9));
    let dry = async |key: &str, ip: &str| {
        let more = ["--dry-run", "--json", "--hotkey", key, "--ip", ip];
        let finished = operator.run(arguments(&["serve-axon"], &finney, &more)).await;
        let document = finished.json_lines().remove(0);
        (finished.code.unwrap(), document["reason"].as_str().map(str::to_owned))
    };
    let reason = |code, reason: &str| (code, Some(reason.to_owned()));
    assert_eq!(dry(&first, "8.8.8.8").await, (0, None));
    assert_eq!(dry(&first, "127.0.0.1").await, reason(1, "input"));
    assert_eq!(dry(&first, "192.168.0.1").await, reason(1, "input"));
    assert_eq!(dry(&stranger, "8.8.8.8").await, reason(1, "not_registered"));
    chain.world().neurons[0].axon = Some(("8.8.4.4".parse().unwrap(), 1, 90));
    assert_eq!(dry(&first, "8.8.8.8").await, reason(5, "chain_rejected"));
    chain.fail("Core_version", Fault::Error(-32000, "no"), None);
    assert_eq!(dry(&first, "8.8.8.8").await, reason(5, "chain"));
}

#[tokio::test]
async fn a_wrong_network_and_wrong_words_are_refused() {
    let operator = Operator::new();
    let chain = TestChain::start(runtime(300, OLD)).await;
    let url = chain.url();
    let run = operator.run(["chain", "status", "--json", "--endpoint", &url]).await.expect(5);
    assert_eq!(run.json_lines()[0]["reason"], "chain_mismatch");
    for (arguments, code) in [
        (&["chain", "status", "--network", "mainnet"][..], 2),
        (&["chain", "status", "--hotkey", "5Grw"], 2),
        (&["chain", "status", "--endpoint", "https://node.example.com"], 1),
        (&["chain", "status", "--endpoint", "ws://node.example.com"], 1),
        (&["chain", "status", "--network", "local"], 1),
        (&["chain", "serve-axon", "--hotkey", "x", "--ip", "8.8.8.8"], 2),
    ] {
        operator.run(arguments.iter().copied()).await.expect(code);
    }
}

/// Writes the hotkey of so many same bytes as a wallet, and returns its address.
fn wallet(operator: &Operator, seed: u8) -> String {
    let folder = operator.home().join(".bittensor/wallets/default/hotkeys");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("default");
    std::fs::write(&file, format!("0x{}\n", format!("{seed:02x}").repeat(32))).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
    pair(seed).public().to_ss58check()
}

fn pair(seed: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&[seed; 32])
}

#[tokio::test]
async fn an_axon_is_announced_once_after_a_yes() {
    let operator = Operator::new();
    let key = wallet(&operator, 42);
    let mut world = World::new(runtime(300, OLD));
    world.register(pair(42).public().into());
    let chain = TestChain::with(world).await;
    let which = local(&chain);
    let announce = async |more: &[&str]| {
        let more = [&["--ip", "8.8.8.8"], more].concat();
        operator.run(arguments(&["serve-axon"], &which, &more)).await
    };
    let sent = || chain.asked("author_submitAndWatchExtrinsic");
    // Nobody is there to say yes; another's hotkey; nothing is sent by a dry run.
    let unasked = announce(&[]).await.expect(1);
    assert!(unasked.stderr.contains("--help"), "{unasked:?}");
    let other = announce(&["--yes", "--hotkey", &address(1)]).await.expect(1);
    assert!(other.stderr.contains(&key), "{other:?}");
    announce(&["--dry-run"]).await.expect(2);
    announce(&["--dry-run", "--yes", "--hotkey", &key]).await.expect(2);
    announce(&["--dry-run", "--hotkey", &key]).await.expect(0);
    assert_eq!(sent(), 0);

    let done = announce(&["--yes", "--json"]).await.expect(0);
    let document = &done.json_lines()[0];
    assert_eq!((&document["sent"], &document["dry_run"]), (&true.into(), &false.into()));
    assert_eq!(document["outcome"]["outcome"], "finalized");
    let (ip, port, _) = chain.world().neurons.last().unwrap().axon.unwrap();
    assert_eq!((ip.to_string().as_str(), port), ("8.8.8.8", 8091));
    let again = announce(&["--yes", "--hotkey", &key]).await.expect(0);
    assert!(again.stdout.contains("nothing was sent"), "{again:?}");
    assert_eq!(sent(), 1);
    assert_eq!(operator.audit().await, ["axon.announced"]);
    // Too soon for another one: that is known before anything is signed.
    let soon = announce(&["--yes", "--json", "--port", "1"]).await.expect(5);
    assert_eq!(soon.json_lines()[0]["reason"], "chain_rejected", "{soon:?}");
    assert_eq!(sent(), 1);
}

#[tokio::test]
async fn a_refused_announcement_has_the_chains_name_for_it() {
    let operator = Operator::new();
    wallet(&operator, 42);
    let mut world = World::new(runtime(300, OLD));
    world.register(pair(42).public().into());
    let chain = TestChain::with(world).await;
    let which = local(&chain);
    let more = ["--ip", "8.8.8.8", "--yes", "--json"];
    chain.world().next_error = Some((12, "ServingRateLimitExceeded"));
    let run = || operator.run(arguments(&["serve-axon"], &which, &more));
    let refused = run().await.expect(5);
    assert_eq!(refused.json_lines()[0]["reason"], "chain_rejected");
    assert!(refused.stdout.contains("ServingRateLimitExceeded"), "{refused:?}");
    chain.world().next_error = None;
    // What became of it is not known: the connection is gone after it was sent.
    chain.fail("author_submitAndWatchExtrinsic", Fault::Drop, Some(1));
    let unknown = run().await.expect(5);
    assert_eq!(unknown.json_lines()[0]["ok"], false, "{unknown:?}");
    // Without a wallet there is nobody to sign.
    let nobody = Operator::new().run(arguments(&["serve-axon"], &which, &more)).await.expect(1);
    assert!(nobody.stdout.contains("wallets/default"), "{nobody:?}");
}
