//! `onair stream`: the streams of an account at a vendor, for a person or a script.
//!
//! What it starts is not written down as onair's own: who starts a stream by hand stops it by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cli::{self, StreamAction};
use crate::config::load::{self, Scope};
use crate::config::platform::{Platform as Config, StreamRef};
use crate::config::{Publisher, Server};
use crate::net::Target;
use crate::platform::{self, Ingest, Pace, Platform, State, Stream};

/// Interval at which a stream that comes up is looked at.
const POLL: Duration = Duration::from_secs(3);
/// Longest wait for a stream to come up.
const START_WITHIN: Duration = Duration::from_secs(300);

/// Does it and prints what came of it.
pub async fn run(args: cli::Stream, _globals: cli::Global) -> anyhow::Result<ExitCode> {
    let config = load::load(&args.config, Scope::Everything)?;
    let (publisher, wanted) = chosen(&config.publishers, args.publisher.as_deref())?;
    let wanted = match (&args.id, &args.name) {
        (Some(id), _) => StreamRef::Id(id.clone()),
        (None, Some(name)) => StreamRef::Name(name.clone()),
        (None, None) => wanted.stream.clone(),
    };
    let Server::Platform(account) = &publisher.server else {
        bail!("the publisher has no platform");
    };
    let mut platform = platform::connect(account, publisher, &Pace::default())?;
    let platform = platform.as_mut();
    let (streams, is_list) = match args.action {
        StreamAction::List => {
            let streams = platform.list().await?;
            if streams.is_empty() {
                tracing::info!("the account has no streams; `onair stream create` makes one");
            }
            (streams, true)
        }
        StreamAction::Create => {
            let StreamRef::Name(name) = &wanted else {
                bail!("name the stream to create by --name");
            };
            // By its name neither of two could be found any more.
            if let Some(known) = platform.list().await?.iter().find(|s| s.name == *name) {
                bail!(
                    "there is a stream {name:?} already, with the id {}; use that one, or give another --name, for \
                     two of one name cannot be told apart",
                    known.id
                );
            }
            (vec![platform.create(name).await?], false)
        }
        StreamAction::Status => (vec![platform::find(platform, &wanted).await?], false),
        StreamAction::Start => (vec![start(platform, &wanted).await?], false),
        StreamAction::Stop => {
            let stream = platform::find(platform, &wanted).await?;
            let state = platform.stop(&stream.id).await?.state;
            (vec![Stream { state, ..stream }], false)
        }
        StreamAction::Delete => {
            let stream = platform::find(platform, &wanted).await?;
            if !args.yes {
                bail!(
                    "the stream {} ({:?}) would be gone for good, with its addresses; say --yes if you mean it",
                    stream.id,
                    stream.name
                );
            }
            if stream.state != State::Stopped {
                bail!("the stream is {}; stop it first", stream.state);
            }
            platform.delete(&stream.id).await?;
            tracing::info!("the stream {} is deleted", stream.id);
            (Vec::new(), false)
        }
    };
    let text = match (args.json, is_list) {
        (true, true) => {
            let all: Vec<Value> = streams.iter().map(as_json).collect();
            format!("{:#}\n", json!({ "streams": all }))
        }
        (true, false) => {
            let one = streams.first().map_or(Value::Null, as_json);
            format!("{:#}\n", json!({ "stream": one }))
        }
        (false, _) => as_table(&streams),
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The publisher of that name, or the only one, that has a platform.
fn chosen<'c>(
    publishers: &'c BTreeMap<String, Publisher>,
    name: Option<&str>,
) -> anyhow::Result<(&'c Publisher, &'c Config)> {
    let mut found = publishers
        .iter()
        .filter(|(other, _)| name.is_none_or(|name| name == *other))
        .filter_map(|(_, publisher)| match &publisher.server {
            Server::Platform(platform) => Some((publisher, &**platform)),
            Server::Ome { .. }
            | Server::Qencode { .. }
            | Server::Whip { .. }
            | Server::Wowza { .. } => None,
        });
    match (found.next(), found.next(), name) {
        (Some(one), None, _) => Ok(one),
        (Some(_), Some(_), _) => {
            let at_platform =
                |(_, publisher): &(_, &Publisher)| matches!(publisher.server, Server::Platform(_));
            let names: Vec<&str> = (publishers.iter().filter(at_platform))
                .map(|(name, _)| name.as_str())
                .collect();
            bail!(
                "the file has several publishers at a platform; name one of them: {}",
                names.join(", ")
            )
        }
        (None, _, Some(name)) => {
            bail!(
                "the file has no publisher {name:?} with to = \"wowza-video\", or \"qencode\" and an api_key"
            )
        }
        (None, _, None) => {
            bail!(
                "the file has no publisher with to = \"wowza-video\", or \"qencode\" and an api_key"
            )
        }
    }
}

/// Starts the stream and waits until it takes media.
async fn start(platform: &mut dyn Platform, wanted: &StreamRef) -> anyhow::Result<Stream> {
    let found = platform::find(platform, wanted).await?;
    if let Ingest::Foreign(encoder) = &found.ingest {
        bail!("the stream was made for an encoder of type {encoder:?} and takes no WebRTC");
    }
    let mut stream = platform.start(&found).await?;
    tracing::info!(
        "the stream {} costs from now on, until it is stopped",
        stream.id
    );
    let up = async {
        loop {
            if stream.state.takes_media() && matches!(stream.ingest, Ingest::At(_)) {
                return Ok(stream);
            }
            tracing::info!("the stream is {}", stream.state);
            tokio::time::sleep(POLL).await;
            stream = platform.refresh(&stream).await?;
        }
    };
    tokio::time::timeout(START_WITHIN, up)
        .await
        .context("the stream was started, but does not take media yet; look at it with `onair stream status`")?
}

/// Where it takes media, as far as that may be shown: the rest of the URL is as good as a password.
fn shown(ingest: &Ingest) -> String {
    match ingest {
        Ingest::At(Server::Qencode { url } | Server::Wowza { url, .. }) => {
            Target::parse(url.expose(), &[]).map_or_else(|_| "-".to_owned(), |t| t.to_string())
        }
        Ingest::Foreign(encoder) => format!("no WebRTC ({encoder})"),
        Ingest::At(_) | Ingest::Unsaid => "-".to_owned(),
    }
}

fn as_json(stream: &Stream) -> Value {
    json!({
        "id": stream.id,
        "name": stream.name,
        "state": stream.state.to_string(),
        "takes_media": stream.state.takes_media(),
        "server": match shown(&stream.ingest).as_str() {
            "-" => None,
            server => Some(server.to_owned()),
        },
    })
}

fn as_table(streams: &[Stream]) -> String {
    let mut rows = vec![["ID", "STATE", "NAME", "SERVER"].map(str::to_owned)];
    for stream in streams {
        // What a vendor calls a stream may be anything.
        let name: String = stream.name.chars().filter(|c| !c.is_control()).collect();
        rows.push([
            stream.id.clone(),
            stream.state.to_string(),
            name,
            shown(&stream.ingest),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..4).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    match streams.is_empty() {
        true => String::new(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn stream(id: &str, name: &str, ingest: Ingest) -> Stream {
        Stream {
            id: id.to_owned(),
            name: name.to_owned(),
            state: State::Ready,
            ingest,
        }
    }

    #[test]
    fn tables_are_aligned_and_show_no_key() {
        let url = Secret::new("wss://live.qencode.example:3334/qlive/planted-key");
        let streams = [
            stream("1", "front\u{7}", Ingest::At(Server::Qencode { url })),
            stream("1234abcd", "", Ingest::Foreign("other_rtmp".to_owned())),
        ];
        let expected = "\
ID        STATE  NAME   SERVER
1         ready  front  wss://live.qencode.example:3334
1234abcd  ready         no WebRTC (other_rtmp)
";
        assert_eq!(as_table(&streams), expected);
        assert_eq!(as_table(&[]), "");
        assert!(!as_json(&streams[0]).to_string().contains("planted"));
    }
}
