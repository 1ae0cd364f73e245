//! Peers with a good certificate that do what no agent does: lies, bombs, slowness, somebody else's name.

use garam_proto::message::{self as m, Message};
use garam_proto::{AgentId, BlockHeader, Codec};

use super::Tally;
use super::arena::{Arena, STREAM};
use super::peer::{Peer, block};
use super::watch::Suspect;

const LINES: &[u8] = b"{\"writer\":0,\"seq\":1}\n";
const MIB: u32 = 1024 * 1024;

/// HTTP and the largest length where frames belong, and frames of 4 GiB that begin.
pub(super) async fn frames(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let config = arena.identity(who).await?.config()?;
    let huge_payload = [[0, 1, 0, 0], [0xff; 4], [7, 1, 0, 0]].concat();
    let said: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &huge_payload];
    let mut tally = Tally::default();
    for bytes in said {
        let mut peer = arena.welcomed(who, config.clone()).await?;
        peer.say(bytes).await;
        peer.say(&[0; 16]).await;
        tally.note(peer.is_ended().await);
    }
    Ok(tally)
}

/// A frame whose bytes drip.
pub(super) async fn slow_frame(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut peer = arena.insider(who).await?;
    let head = Message::from(m::Ping { nonce: 1 }).encode(0)?;
    for byte in head.iter().take(head.len() - 1) {
        peer.say(&[*byte]).await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    let mut tally = Tally::default();
    tally.note(peer.is_ended().await);
    Ok(tally)
}

/// Blocks whose sizes cannot be: the door sees that without decoding them.
pub(super) async fn spoofed_sizes(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let config = arena.identity(who).await?.config()?;
    let zeros = zstd::bulk::compress(&vec![0; 4 * MIB as usize], 3)?;
    let cases = [
        (Codec::None, LINES, 4096),
        (Codec::Zstd, zeros.as_slice(), 15 * MIB),
        (Codec::Lz4, LINES, 15 * MIB),
        (Codec::Zstd, LINES, u32::MAX),
        (Codec::Lz4, LINES, 3),
    ];
    let mut tally = Tally::default();
    for (codec, payload, raw) in cases {
        let mut peer = arena.welcomed(who, config.clone()).await?;
        if peer.claim(1, STREAM).await? {
            let block = block(peer.agent, 1, payload, codec, raw);
            peer.send(m::Push { slot: 1, answer: 1, block }.into(), payload).await;
        }
        tally.note(peer.is_ended().await);
        // No storm of takeovers: that is another attack.
        arena.left(who).await?;
    }
    Ok(tally)
}

/// Payloads that hold more than they say, of each codec: the door does not decode, the reader puts them aside whole.
pub(super) async fn bombs(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut peer = arena.insider(who).await?;
    let (said, held) = (60 * 1024, 64 * MIB as usize);
    let mut payloads = vec![
        (Codec::Zstd, zstd::bulk::compress(&vec![b'{'; held], 3)?),
        (Codec::Zstd, zstd::bulk::compress(&vec![b'\n'; held], 19)?),
        (Codec::Zstd, wide_window()?),
        (Codec::Lz4, lz4_of_zeros(8 * MIB)),
        (Codec::None, vec![b'\n'; said as usize]),
    ];
    payloads.push((Codec::Zstd, two_frames()?));
    let mut tally = Tally::default();
    for (slot, (codec, payload)) in (1..).zip(&payloads) {
        let whole = if *codec == Codec::None { u32::try_from(payload.len())? } else { said };
        let raw = whole.max(u32::try_from(payload.len())?);
        if !peer.claim(slot, STREAM).await? {
            anyhow::bail!("a claim of its own stream is not granted");
        }
        let acknowledged =
            peer.push(slot, block(peer.agent, slot, payload, *codec, raw), payload).await;
        tally.tries += 1;
        tally.refused += u64::from(acknowledged);
    }
    Ok(tally)
}

/// A frame that asks for a window of 2 GiB.
fn wide_window() -> anyhow::Result<Vec<u8>> {
    let mut frame = zstd::bulk::compress(&vec![b'x'; 300_000], 3)?;
    // Not a single segment, and a window descriptor of 2^31, in place of the content's size.
    let descriptor = frame.get_mut(4);
    if let Some(descriptor) = descriptor {
        *descriptor = 0;
    }
    if let Some(window) = frame.get_mut(5) {
        *window = 21 << 3;
    }
    Ok(frame)
}

/// Two frames where one belongs.
fn two_frames() -> anyhow::Result<Vec<u8>> {
    let one = zstd::bulk::compress(&[b'{'; 30 * 1024], 3)?;
    Ok([one.clone(), one].concat())
}

/// An LZ4 block by hand: one literal, then a match of it that goes on and on.
fn lz4_of_zeros(raw: u32) -> Vec<u8> {
    let mut block = vec![0x1f, 0, 1, 0];
    block.extend(std::iter::repeat_n(0xff, raw as usize / 255));
    block.extend([0, 0x10, 0]);
    block
}

/// A block in another's name.
pub(super) async fn forged_agent(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let lie = |_| block(AgentId([9; 16]), 1, LINES, Codec::None, LINES.len() as u32);
    lies(arena, who, LINES, lie).await
}

/// A block of an origin that was never claimed, under the number of one that was.
pub(super) async fn forged_origin(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let lie = |agent| block(agent, 7, LINES, Codec::None, LINES.len() as u32);
    lies(arena, who, LINES, lie).await
}

/// A record that is longer than its policy lets it be.
pub(super) async fn long_record(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let payload = vec![b'x'; 1000];
    let lie = |agent| {
        let block = block(agent, 1, &payload, Codec::None, 2 * MIB);
        BlockHeader { payload_len: 2 * MIB, ..block }
    };
    lies(arena, who, &payload, lie).await
}

/// One block under slot 1, which holds what the attacker may claim; the session must end of it.
async fn lies(
    arena: &Arena,
    who: &Suspect,
    payload: &[u8],
    lie: impl FnOnce(AgentId) -> BlockHeader,
) -> anyhow::Result<Tally> {
    let mut peer = arena.insider(who).await?;
    anyhow::ensure!(peer.claim(1, STREAM).await?, "a claim of its own stream is not granted");
    let block = lie(peer.agent);
    peer.send(m::Push { slot: 1, answer: 1, block }.into(), payload).await;
    let mut tally = Tally::default();
    tally.note(peer.is_ended().await);
    Ok(tally)
}

/// Into a stream that its policy does not name.
pub(super) async fn forged_stream(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut peer = arena.insider(who).await?;
    let mut tally = Tally::default();
    tally.note(!peer.claim(1, "soak").await?);
    // What was denied is no slot.
    let block = block(peer.agent, 1, LINES, Codec::None, LINES.len() as u32);
    peer.send(m::Push { slot: 1, answer: 1, block }.into(), LINES).await;
    tally.note(peer.is_ended().await);
    Ok(tally)
}

/// The same block again and again, and blocks that obey an older answer: they are heard, and change nothing.
pub(super) async fn repeated_blocks(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut peer = arena.insider(who).await?;
    let mut tally = Tally::default();
    anyhow::ensure!(peer.claim(1, STREAM).await?, "a claim of its own stream is not granted");
    // Bytes the contract refuses, so that what is counted as delivered stays none.
    let payload = b"not json\n";
    let block = block(peer.agent, 1, payload, Codec::None, u32::try_from(payload.len())?);
    anyhow::ensure!(peer.push(1, block.clone(), payload).await, "a good block is not taken");
    let before = arena.bytes_in_log().await?;
    for _ in 0..5 {
        let stale = m::Push { slot: 1, answer: 0, block: block.clone() };
        peer.send(stale.into(), payload).await;
        let heard = peer.push(1, block.clone(), payload).await;
        tally.note(heard && arena.bytes_in_log().await? == before);
    }
    close(peer).await;
    Ok(tally)
}

async fn close(mut peer: Peer) {
    let bye = m::Bye { reason: m::ByeReason::Shutdown, text: String::new() };
    peer.send(bye.into(), &[]).await;
    peer.is_ended().await;
}
