//! Names of other containers: what a guest asks of the engine's server for names, which only the host can reach.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_protocol::link::LinkStream;
use cofferdam_protocol::link::resolver::{
    LONGEST_QUESTION, MOST_QUESTIONS, NameMessage, Transport,
};
use sandbox_network::Resolver;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, JoinSet};

use crate::error::chain;
use crate::sandbox::guest::Guest;

/// How long a guest may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions of a guest, answered as long as the engine has a server and this is not dropped.
#[derive(Debug)]
pub(crate) struct Names {
    guest: Arc<Guest>,
    resolver: Resolver,
    task: Option<JoinHandle<()>>,
}

impl Names {
    pub(crate) fn new(guest: Arc<Guest>, resolver: Resolver) -> Self {
        Self {
            guest,
            resolver,
            task: None,
        }
    }

    /// Has the guest ask, or not any more. What stands in the way is logged: the guest can do without.
    pub(crate) async fn follow(&mut self, is_there: bool) {
        if !is_there {
            self.end();
            return;
        }
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.guest.open_resolver()).await {
            Ok(Ok(stream)) => {
                let resolver = self.resolver.clone();
                self.task = Some(tokio::spawn(answer(stream, resolver)));
            }
            Ok(Err(error)) => tracing::warn!(
                error = chain(&error),
                "names of other containers are unknown in the guest"
            ),
            Err(_) => tracing::warn!(
                "names of other containers are unknown in the guest: it does not listen within {PATIENCE:?}"
            ),
        }
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.end();
    }
}

async fn answer(stream: LinkStream, resolver: Resolver) {
    match try_answer(stream, resolver).await {
        Ok(()) => tracing::debug!("the guest asks for no more names"),
        Err(error) => {
            tracing::warn!(%error, "the guest's questions for names are not answered any more")
        }
    }
}

/// Answers until the guest ends the stream. Everything in it is bounded: the guest is not trusted.
async fn try_answer(stream: LinkStream, resolver: Resolver) -> io::Result<()> {
    let (mut questions, mut answers) = tokio::io::split(stream);
    let mut open = JoinSet::new();
    loop {
        // Reading a question is not given up half way: what is answered meanwhile waits. So the reader is apart.
        let mut reading = Box::pin(NameMessage::read(&mut questions, LONGEST_QUESTION));
        let question = loop {
            tokio::select! {
                question = &mut reading, if open.len() < MOST_QUESTIONS => break question?,
                Some(answered) = open.join_next() => {
                    let answer: NameMessage = answered.map_err(io::Error::other)?;
                    answers.write_all(&answer.encode()).await?;
                    answers.flush().await?;
                }
            }
        };
        let Some(question) = question else {
            return Ok(());
        };
        let resolver = resolver.clone();
        open.spawn(async move { ask(&resolver, question).await });
    }
}

async fn ask(resolver: &Resolver, question: NameMessage) -> NameMessage {
    let message = &question.message;
    let answer = match question.transport {
        Transport::Datagram => resolver.ask_by_datagram(message).await,
        Transport::Connection => resolver.ask_by_connection(message).await,
    };
    let message = answer.unwrap_or_else(|error| {
        // The guest decides how often.
        tracing::debug!(%error, "a question for a name has no answer");
        Vec::new()
    });
    NameMessage {
        message,
        ..question
    }
}
