//! Valid inputs to begin with. `GARAM_WRITE_SEEDS=1` writes them into the corpus, after a format has changed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use garam_agent::checkpoint::{Entry, Store};
use garam_core::pki::{DAY, Pki, Role};
use garam_faulty_disk::FaultyFs;
use garam_log::embedded::Env;
use garam_log::{Append, AppendBody, Claim, EmbeddedLog, Log, LogConfig, StreamConfig};
use garam_proto::enrol::{Answer, Enrol, Issued, Question, Recover, Refused};
use garam_proto::message::ClaimReason;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Compressor, Descriptor, FileDescriptor, Generation,
    LineageId, OriginId, PartitionId, RecordsBuilder, SessionId, SourceName, StreamName,
};

#[test]
fn seeds_are_written_when_asked_for() {
    if std::env::var_os("GARAM_WRITE_SEEDS").is_none() {
        return;
    }
    enrolment();
    blocks();
    certificates();
    texts();
    checkpoint();
    log();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = super::folder(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn stream() -> StreamName {
    StreamName::new("s").unwrap()
}

fn origin() -> OriginId {
    OriginId { agent: AgentId([1; 16]), generation: Generation([2; 16]) }
}

fn descriptor() -> Descriptor {
    Descriptor::File(FileDescriptor {
        path: b"/var/log/app.log".to_vec(),
        file_system: 7,
        inode: 8,
        birth_ns: Some(1),
        head_len: 3,
        head_hash: 4,
    })
}

fn header(payload: &[u8], raw_len: u32, kind: BlockKind, codec: Codec) -> BlockHeader {
    BlockHeader {
        origin: origin(),
        session: SessionId(1),
        from: 0,
        to: u128::from(raw_len),
        records: 1,
        kind,
        flags: 0,
        codec,
        raw_len,
        payload_len: payload.len() as u32,
        payload_crc: crc32c::crc32c(payload),
        ingest_time_us: 1,
        tail_hash: garam_proto::hash::tail_hash(payload),
        resume: None,
    }
}

fn enrolment() {
    let enrol = Question::Enrol(Enrol {
        token: "abcd".into(),
        secret: "efgh".into(),
        host: "web-01".into(),
        csr: vec![1, 2, 3],
        build: "test".into(),
    });
    write("enrolment", "enrol", &enrol.encode().unwrap());
    let recover = Question::Recover(Recover { csr: vec![1, 2, 3], build: "test".into() });
    write("enrolment", "recover", &recover.encode().unwrap());
    let issued = Answer::Issued(Issued {
        agent: AgentId([1; 16]),
        host: "web-01".into(),
        root: "PEM".into(),
        chain: "PEM".into(),
        time_us: 1,
    });
    write("enrolment", "issued", &issued.encode().unwrap());
    let refused = Answer::Refused(Refused { why: "no".into(), later: false, time_us: 1 });
    write("enrolment", "refused", &refused.encode().unwrap());
}

fn blocks() {
    let text = b"a line that is there more than once\n".repeat(20);
    let mut records = RecordsBuilder::new(0);
    records.push(0, b"first");
    records.push(5, b"second");
    let (records, _) = records.finish();
    for (codec, name) in [(Codec::None, "none"), (Codec::Lz4, "lz4"), (Codec::Zstd, "zstd")] {
        let mut payload = Vec::new();
        Compressor::new(codec, 1).unwrap().compress(&text, &mut payload).unwrap();
        let lines = header(&payload, text.len() as u32, BlockKind::Lines, codec);
        let head = garam_proto::encode("BlockHeader", &lines).unwrap();
        write("block", name, &[&[head.len() as u8], head.as_slice(), &payload].concat());
    }
    let head = header(&records, records.len() as u32, BlockKind::Records, Codec::None);
    let head = BlockHeader { records: 2, to: 11, ..head };
    let head = garam_proto::encode("BlockHeader", &head).unwrap();
    write("block", "records", &[&[head.len() as u8], head.as_slice(), &records].concat());
}

fn certificates() {
    for (name, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let request = rcgen::CertificateParams::new(["web-01".to_owned()]).unwrap();
        write("csr", name, request.serialize_request(&key).unwrap().der());
    }
    let folder = std::env::temp_dir().join(format!("garam-seeds-{}", std::process::id()));
    let pki = Pki::at(folder.join("pki"));
    pki.init("seeds").unwrap();
    let authority = pki.authority().unwrap();
    authority.issue_admin("kim", Role::Viewer, DAY, &folder.join("kim")).unwrap();
    let key = garam_core::pki::AgentKey::generate().unwrap();
    let (agent, host) = (AgentId([1; 16]), "web-01".to_owned());
    let grant = garam_meta::Grant { agent, host, policy: Some("web".into()), generation: 3 };
    let made = authority.sign_own(&grant, &key, DAY).unwrap();
    authority.write_identity(&folder.join("web-01"), &made, &key).unwrap();
    for name in ["kim", "web-01"] {
        let path = folder.join(name).join("cert.pem");
        let certificates = garam_core::pki::read_certificates(&path).unwrap();
        write("certificate", name, &certificates[0]);
        write("certificate", "issuing", &certificates[1]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn texts() {
    let core = "data_dir = \"/var/lib/garam\"\n[gateway]\nlisten = \"127.0.0.1:7470\"\nnames = [\"core\"]\n[admin]\nremote_listen = \"[::1]:7480\"\n\
                [log]\nsegment_size = \"1MiB\"\n[policy.web]\nstreams = [\"a*\"]\nrate = \"1MiB\"\n[stream.a]\nretain = \"1h\"\n\
                [stream.a.contract]\nformat = \"regex\"\npattern = '(?P<x>\\d+)'\n[stream.a.contract.columns]\nx = \"decimal(18,2) not null\"\n\
                [pipeline.p]\nfrom = \"a\"\n[pipeline.p.to.sqlite]\npath = \"/x\"\ntable = \"t\"\n";
    write("core_config", "whole", core.as_bytes());
    write("core_config", "small", b"[stream.s]\n");
    let agent = "state_dir = \"/s\"\ncore = [\"core:7470\", \"[::1]:7470\"]\n[[file]]\nname = \"a\"\ninclude = [\"/var/log/**/*.log\"]\nexclude = [\"*.gz\"]\n\
                 stream = \"a\"\n[[syslog]]\nname = \"l\"\nstream = \"a\"\nlisten = [\"udp://127.0.0.1:514\", \"unix:///dev/log\"]\n[[journal]]\nname = \"j\"\nstream = \"a\"\n";
    write("agent_config", "whole", agent.as_bytes());
    write("syslog", "both-framings", b"<13>one\n7 <14>two<13>three\r\n");
    write("journal", "two-entries", b"__CURSOR=c1\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n=\0b\nEMPTY=\n\n__CURSOR=c2\nMESSAGE=x\nMESSAGE=y\n\n");
}

fn checkpoint() {
    let Descriptor::File(descriptor) = descriptor() else { return };
    let entry = Entry {
        generation: Generation([2; 16]),
        source: SourceName::new("app").unwrap(),
        stream: stream(),
        lineage: Some(LineageId(9)),
        descriptor,
        start: 0,
        mark: 10,
        tail_hash: 1,
        seen: 12,
        lost: false,
        source_epoch: 1,
        records_acked: 1,
        gap_bytes: 0,
        skipped_bytes: 0,
    };
    let disk = FaultyFs::new(1);
    let (mut store, _) = Store::open(Arc::new(disk.clone()), Path::new("/state")).unwrap();
    disk.put(Path::new("/state/x"), b"");
    store.save(&[entry]).unwrap();
    let bytes = disk.bytes(Path::new("/state/checkpoint")).unwrap();
    let body = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    write("checkpoint", "one-entry", &bytes[body..]);
    write("checkpoint", "sealed", &bytes);
}

fn log() {
    let disk = FaultyFs::new(1);
    let env = Env { fs: Arc::new(disk.clone()), ..Env::default() };
    let mut config = LogConfig::new("/log");
    config.segment_size = 64 * 1024;
    config.streams = vec![StreamConfig::new(stream())];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = EmbeddedLog::open_with(config, env).unwrap();
        let claim = Claim {
            stream: stream(),
            origin: origin(),
            host: "web-01".into(),
            source: SourceName::new("app").unwrap(),
            descriptor: descriptor(),
            lineage: LineageId(9),
            session: SessionId(1),
            from: 0,
            reason: ClaimReason::New,
            source_epoch: 0,
        };
        log.claim(claim).await.unwrap().wait().await.unwrap();
        let partition = PartitionId { stream: stream(), index: 0 };
        for (from, line) in [(0, b"first line\n"), (11, b"other line\n")] {
            let block = header(line, line.len() as u32, BlockKind::Lines, Codec::None);
            let block = BlockHeader { from, to: from + line.len() as u128, ..block };
            let body = AppendBody::Block { header: block, payload: Bytes::from_static(line) };
            let append = Append { origin: origin(), session: SessionId(1), body };
            log.append(&partition, append).await.unwrap().wait().await.unwrap();
        }
        log.shutdown().await;
    });
    let segment = Path::new("/log/s/0000/00000000000000000000.seg");
    let bytes = disk.bytes(segment).unwrap();
    write("segment", "three-entries", &bytes);
    write("segment", "torn", &bytes[..bytes.len() - 5]);
}
