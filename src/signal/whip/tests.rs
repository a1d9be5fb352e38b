use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::signal::testing::{OUR_OFFER, dialer, has_candidates, recorded};

mod parting;
mod patches;

const URL: &str = "https://h.example:3334/app/camera-key?direction=whip&signature=sealed";
const SESSION: &str = "HTTP/1.1 201 Created\r\ncontent-type: application/sdp\r\nlocation: /app/s/8chars\r\netag: t1\r\n";

/// The server's side: it takes one connection for each request.
struct Far {
    pipes: mpsc::UnboundedReceiver<(Target, DuplexStream)>,
}

/// A request as the server hears it.
#[derive(Debug)]
struct Heard {
    /// `POST https://h.example/path`.
    asked: String,
    /// Lower-case names.
    headers: Vec<(String, String)>,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Far {
    /// Takes the next connection and reads the request on it.
    async fn hear(&mut self) -> (Heard, DuplexStream) {
        let (target, mut pipe) = self.pipes.recv().await.expect("a connection");
        let mut text = String::new();
        loop {
            let mut piece = [0; 4096];
            let n = pipe.read(&mut piece).await.unwrap();
            assert!(n > 0, "the request is cut off: {text}");
            text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let mut lines = head.lines();
            let mut words = lines.next().unwrap().split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let headers: Vec<(String, String)> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            let origin = target.expose().origin().ascii_serialization();
            let heard = Heard {
                asked: format!("{method} {origin}{path}"),
                headers,
                body: body.to_owned(),
            };
            let length = heard
                .header("content-length")
                .map_or(0, |l| l.parse().unwrap());
            if heard.body.len() == length {
                return (heard, pipe);
            }
        }
    }

    /// Hears one request and says `head` (without the empty line) and `body`.
    async fn serve(&mut self, head: &str, body: &str) -> Heard {
        let (heard, mut pipe) = self.hear().await;
        let length = body.len();
        let text = format!("{head}content-length: {length}\r\n\r\n{body}");
        pipe.write_all(text.as_bytes()).await.unwrap();
        heard
    }

    /// Hears one request and replies with `status` and nothing else.
    async fn status(&mut self, status: u16) -> Heard {
        self.serve(&format!("HTTP/1.1 {status} x\r\n"), "").await
    }

    /// Whether nothing more was asked.
    fn is_left_alone(&mut self) -> bool {
        self.pipes.try_recv().is_err()
    }
}

fn whip(url: &str, token: Option<Token>, trickle: Trickle) -> (Whip, Far) {
    let (sender, pipes) = mpsc::unbounded_channel();
    let dial: Dial = Arc::new(move |target| {
        let (near, far) = duplex(1 << 20);
        sender.send((target, far)).unwrap();
        Box::pin(async { Ok(Box::new(near) as Box<dyn net::Stream>) })
    });
    let picture = Picture {
        size: Size {
            width: 1280,
            height: 720,
        },
        fps: 30,
    };
    let url = Secret::new(url);
    let whip = Whip::with_dial(&url, token, trickle, Some(picture), dialer(), dial);
    (whip, Far { pipes })
}

fn token(value: &str) -> Option<Token> {
    Some(Token {
        value: Secret::new(value),
        reread: None,
    })
}

/// An answer as the smallest server gives it.
fn answer() -> String {
    let recorded = recorded("whip/srs-7.0.18-publish.json");
    recorded["body"].as_str().unwrap().to_owned()
}

/// A signaller that a server has let on, with the `Location` and entity tag of [`SESSION`].
async fn let_on(trickle: Trickle) -> (Whip, Far) {
    let (mut whip, mut far) = whip(URL, token("hush-hush"), trickle);
    assert!(matches!(whip.open(0).await, Ok(Opening::SendOffer)));
    let body = answer();
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
    remote.unwrap();
    (whip, far)
}

/// What an error tells, which must hold none of the secrets.
fn told(error: &Error) -> String {
    let text = format!("{error} {error:?}");
    for secret in ["camera-key", "sealed", "hush-hush", "8chars"] {
        assert!(!text.contains(secret), "{text}");
    }
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn the_offer_is_posted_as_the_rfc_wants_it() {
    let (mut whip, mut far) = whip(URL, token("hush-hush"), Trickle::Sdpfrag);
    let body = answer();
    let (remote, heard) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
    assert_eq!(
        heard.asked,
        "POST https://h.example:3334/app/camera-key?direction=whip&signature=sealed"
    );
    assert_eq!(heard.header("content-type"), Some("application/sdp"));
    assert_eq!(heard.header("authorization"), Some("Bearer hush-hush"));
    assert_eq!(
        heard.header("oven-capabilities"),
        Some("max_width=1280, max_height=720, max_fps=30")
    );
    assert!(heard.body.contains("a=candidate:1 1 udp"), "{}", heard.body);
    assert!(!heard.body.contains("end-of-candidates"), "more may follow");
    let remote = remote.unwrap().unwrap();
    assert!(has_candidates(&remote, &[("udp", 8000)]));
    assert!(remote.sdp.contains("a=ice-lite") && remote.sdp.contains("a=ice-ufrag:29k18127"));
    assert_eq!(remote.payload_types, PayloadTypes::OFFERED);
    assert!(remote.ice_servers.is_empty());
    assert!(far.is_left_alone());
}

#[tokio::test(start_paused = true)]
async fn without_a_token_there_is_no_authorization() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Off);
    let body = answer();
    let (_, heard) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
    assert_eq!(heard.header("authorization"), None);
    assert!(
        heard.body.contains("a=end-of-candidates"),
        "none will follow"
    );
}

#[tokio::test(start_paused = true)]
async fn the_recorded_replies_of_ome_and_srs_are_taken() {
    for (file, session, wanted) in [
        (
            "whip/ome-v0.21.0-publish.json",
            "DELETE http://127.0.0.1:3333/qlive/whip1/J1V5W4bn?direction=whip",
            vec![("tcp", 3479), ("udp", 10002)],
        ),
        (
            "whip/srs-7.0.18-publish.json",
            "DELETE http://127.0.0.1:1985/rtc/v1/whip/?action=delete&token=8m99w4616&app=live&stream=s1&session=29k18127:DKy7",
            vec![("udp", 8000)],
        ),
    ] {
        let recorded = recorded(file);
        let (mut whip, mut far) = whip(recorded["url"].as_str().unwrap(), None, Trickle::Sdpfrag);
        let mut head = format!("HTTP/1.1 {} x\r\n", recorded["status"]);
        let headers = recorded["headers"].as_object().unwrap();
        for (name, value) in headers {
            head += &format!("{name}: {}\r\n", value.as_str().unwrap());
        }
        let body = recorded["body"].as_str().unwrap();
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(&head, body));
        assert!(has_candidates(&remote.unwrap().unwrap(), &wanted), "{file}");
        let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
        assert_eq!(heard.asked, session);
    }
}

#[tokio::test(start_paused = true)]
async fn ice_servers_of_links_are_handed_on_and_an_inner_address_is_mended() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let head = SESSION.to_owned()
        + "link: <turn:10.0.0.1:3478?transport=tcp>; rel=\"ice-server\"; username=\"ome\"; credential=\"airen\"\r\n\
           link: <stun:stun.example>; rel=\"ice-server\", <x>; rel=\"next\"\r\n";
    let body = answer();
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(&head, &body));
    let remote = remote.unwrap().unwrap();
    let urls: Vec<_> = remote
        .ice_servers
        .iter()
        .map(|s| s.url.to_string())
        .collect();
    assert_eq!(
        urls,
        [
            "turn:h.example:3478?transport=tcp",
            "turn:10.0.0.1:3478?transport=tcp",
            "stun:stun.example:3478"
        ]
    );
    assert_eq!(remote.ice_servers[0].credential.expose(), "airen");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_keeps_method_and_body_and_the_token_at_home() {
    let (mut whip, mut far) = whip(URL, token("hush-hush"), Trickle::Sdpfrag);
    let body = answer();
    let server = async {
        let near = far.serve("HTTP/1.1 308 x\r\nlocation: /edge\r\n", "").await;
        let next = far
            .serve(
                "HTTP/1.1 307 x\r\nlocation: https://edge.example/w/1\r\n",
                "",
            )
            .await;
        let away = far.serve("HTTP/1.1 307 x\r\nlocation: 2\r\n", "").await;
        let last = far.serve(SESSION, &body).await;
        [near, next, away, last]
    };
    let (remote, heard) = tokio::join!(whip.exchange(OUR_OFFER), server);
    remote.unwrap();
    let asked: Vec<_> = heard.iter().map(|h| h.asked.as_str()).collect();
    assert_eq!(asked[1], "POST https://h.example:3334/edge");
    assert_eq!(asked[2], "POST https://edge.example/w/1");
    assert_eq!(asked[3], "POST https://edge.example/w/2");
    for (n, heard) in heard.iter().enumerate() {
        assert_eq!(heard.header("authorization").is_some(), n < 2, "{heard:?}");
        assert!(n < 2 || !format!("{heard:?}").contains("hush-hush"));
        assert!(n == 0 || !format!("{heard:?}").contains("sealed"));
        assert_eq!(heard.body, heard_body(&whip, OUR_OFFER));
    }
    // The session lies where the answer came from, and is not told the token either.
    let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
    assert_eq!(heard.asked, "DELETE https://edge.example/app/s/8chars");
    assert_eq!(heard.header("authorization"), None);
}

fn heard_body(whip: &Whip, offer: &str) -> String {
    sdp::whip_offer(offer, whip.trickle != Trickle::Off)
}

#[tokio::test(start_paused = true)]
async fn options_are_asked_for_where_redirects_lead() {
    let (whip, mut far) = whip(URL, token("hush-hush"), Trickle::Sdpfrag);
    let server = async {
        let head = "HTTP/1.1 308 x\r\nlocation: https://edge.example/w\r\n";
        let home = far.serve(head, "").await;
        let head = "HTTP/1.1 204 x\r\naccept-post: Application/SDP\r\n\
                    link: <turn:10.0.0.1:3478>; rel=\"ice-server\"\r\n";
        [home, far.serve(head, "").await]
    };
    let (options, [home, edge]) = tokio::join!(whip.options(), server);
    let options = options.unwrap();
    assert_eq!(options.endpoint, "https://edge.example:443");
    assert!(options.status == 204 && options.takes_sdp);
    assert_eq!(options.ice_servers[0].url.host, "edge.example");
    assert_eq!(home.header("authorization"), Some("Bearer hush-hush"));
    assert_eq!(edge.asked, "OPTIONS https://edge.example/w");
    assert_eq!(edge.header("authorization"), None);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_that_cannot_be_followed_is_a_refusal_that_says_why() {
    for (location, why) in [
        ("", "where to"),
        (
            "location: http://h.example:3334/camera-key\r\n",
            "plain http",
        ),
        (
            "location: /app/camera-key?direction=whip&signature=sealed\r\n",
            "loop",
        ),
    ] {
        let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
        let head = format!("HTTP/1.1 307 x\r\n{location}");
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(&head, ""));
        let error = remote.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 307, .. }));
        assert!(told(&error).contains(why), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_refused_after_a_redirect_is_explained() {
    let (mut whip, mut far) = whip(URL, token("hush-hush"), Trickle::Sdpfrag);
    let server = async {
        far.serve("HTTP/1.1 307 x\r\nlocation: https://edge.example/\r\n", "")
            .await;
        far.status(401).await
    };
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), server);
    let error = remote.unwrap_err();
    assert!(told(&error).contains("another origin"), "{error}");
    assert!(told(&error).starts_with("https://edge.example:443 refused with 401"));
}

/// A token file that is renewed: each reading gives the next text, the last one for ever.
fn renewed(texts: &[&str]) -> Option<Token> {
    let mut left: Vec<Secret> = texts.iter().rev().map(|t| Secret::new(*t)).collect();
    let value = left.pop().unwrap();
    let left = Mutex::new(left);
    let reread = move || left.lock().unwrap().pop();
    Some(Token {
        value,
        reread: Some(Box::new(reread)),
    })
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_read_again_and_the_new_one_tried_at_once() {
    let (mut whip, mut far) = whip(URL, renewed(&["old-token", "new-token"]), Trickle::Sdpfrag);
    let body = answer();
    let server = async {
        let first = far.status(401).await;
        let second = far.serve(SESSION, &body).await;
        (first, second)
    };
    let started = Instant::now();
    let (remote, (first, second)) = tokio::join!(whip.exchange(OUR_OFFER), server);
    remote.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(first.header("authorization"), Some("Bearer old-token"));
    assert_eq!(second.header("authorization"), Some("Bearer new-token"));
    let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
    assert_eq!(heard.header("authorization"), Some("Bearer new-token"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_the_same_or_refused_again_is_a_refusal() {
    // (tokens, requests)
    for (tokens, requests) in [
        (vec!["a-token"], 1),
        (vec!["a-token", "a-token"], 1),
        (vec!["a-token", "b-token", "c-token"], 2),
    ] {
        for status in [401, 403] {
            let (mut whip, mut far) = whip(URL, renewed(&tokens), Trickle::Sdpfrag);
            let head = format!("HTTP/1.1 {status} x\r\n");
            let server = async {
                for token in &tokens[..requests] {
                    let said = format!("not {token} in camera-key");
                    far.serve(&head, &said).await;
                }
            };
            let (remote, ()) = tokio::join!(whip.exchange(OUR_OFFER), server);
            let error = remote.unwrap_err();
            assert!(matches!(error, Error::Refused { status: s, .. } if s == status));
            assert!(told(&error).ends_with("not *** in ***"), "{error}");
            assert!(far.is_left_alone());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_tells_the_servers_words_and_when_to_come_back() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let head = "HTTP/1.1 503 x\r\ncontent-type: text/plain\r\nretry-after: 7\r\n";
    let words = format!("camera-key is busy\r\n{}", "x".repeat(500));
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(head, &words));
    let error = remote.unwrap_err();
    assert!(told(&error).starts_with("https://h.example:3334 refused with 503: *** is busy  xxx"));
    assert!(told(&error).len() < 300);
    let Error::Refused {
        retry_after, step, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    assert_eq!(step, Step::Answered);
}

/// Observed of SRS 7.0.18.
#[tokio::test(start_paused = true)]
async fn a_connection_closed_without_a_reply_says_what_that_usually_means() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let (remote, ()) = tokio::join!(whip.exchange(OUR_OFFER), async {
        drop(far.hear().await);
    });
    let error = remote.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert!(told(&error).contains("SRS") && told(&error).contains("name is in use"));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_after_fifteen_seconds() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let started = Instant::now();
    let server = async {
        let kept = far.hear().await;
        std::future::pending::<()>().await;
        drop(kept);
    };
    let error = tokio::select! {
        remote = whip.exchange(OUR_OFFER) => remote.unwrap_err(),
        () = server => panic!("never"),
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_work_is_said_and_its_session_deleted() {
    let video = answer().find("m=video").unwrap();
    for body in [
        answer().replace("m=video 9", "m=video 0"),
        answer()[..video].to_owned(),
    ] {
        let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
        let error = remote.unwrap_err();
        assert!(matches!(error, Error::Sdp { .. }), "{error:?}");
        assert!(told(&error).contains("refused the video"), "{error}");
        assert!(!whip.can_restart());
        let ((), heard) = tokio::join!(whip.close(Parting::Abandon), far.status(200));
        assert_eq!(heard.asked, "DELETE https://h.example:3334/app/s/8chars");
    }
}

#[tokio::test(start_paused = true)]
async fn a_web_page_is_no_whip_endpoint() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let head = "HTTP/1.1 200 x\r\ncontent-type: text/html\r\n";
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(head, "<html>"));
    let error = remote.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 200, .. }));
    assert!(told(&error).contains("WHIP endpoint"), "{error}");
}

#[tokio::test]
async fn an_unusable_url_is_reported_when_opened() {
    for url in ["wss://h.example/", "https://u:p@h.example/", "camera-key"] {
        let (mut whip, _far) = whip(url, None, Trickle::Sdpfrag);
        let error = whip.open(0).await.unwrap_err();
        assert!(matches!(error, Error::Connect(net::Error::Url { .. })));
        told(&error);
        whip.close(Parting::Abandon).await;
    }
}
