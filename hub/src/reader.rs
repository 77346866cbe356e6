//! A file of a repository, read in order whatever happens to connections meanwhile.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;

use palmtop_convert::stream::ByteSource;
use ureq::BodyReader;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

use crate::client::{Client, Failure, Request, Tries};
use crate::error::HubError;
use crate::repository::{Repository, RepositoryFile};

/// Of a file that comes from its start though another part was asked for.
const SKIPPED: usize = 64 << 10;

/// Files of a repository.
pub struct Files {
    pub client: Arc<Client>,
    pub repository: Arc<Repository>,
}

impl Files {
    /// Reads from byte `start` up to byte `end`.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn read(&self, path: &str, start: u64, end: u64) -> Result<FileReader, HubError> {
        let file = self.repository.file(path);
        let missing = || HubError::NoFile { repo: self.repository.name.id.clone(), file: path.to_owned() };
        let file = file.ok_or_else(missing)?.clone();
        let (client, repository) = (self.client.clone(), self.repository.clone());
        Ok(FileReader { client, repository, file, at: start, end, body: None, tries: Tries::default() })
    }
}

impl ByteSource for Files {
    fn open(
        &self,
        file: &str,
        start: u64,
        end: u64,
    ) -> Result<Box<dyn Read + Send>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(self.read(file, start, end)?))
    }
}

/// A part of a file on its way. Connections that end are made anew behind what has come.
pub struct FileReader {
    client: Arc<Client>,
    repository: Arc<Repository>,
    file: RepositoryFile,
    at: u64,
    end: u64,
    body: Option<BodyReader<'static>>,
    tries: Tries,
}

impl FileReader {
    /// Reads up to the end.
    ///
    /// # Errors
    /// What the network says.
    pub fn read_all(mut self) -> Result<Vec<u8>, HubError> {
        let mut bytes = vec![0; (self.end - self.at) as usize];
        let mut done = 0;
        while done < bytes.len() {
            done += self.next(&mut bytes[done..])?;
        }
        Ok(bytes)
    }

    /// Reads some bytes, at least one unless all have come.
    ///
    /// # Errors
    /// What the network says, after several tries.
    pub fn next(&mut self, out: &mut [u8]) -> Result<usize, HubError> {
        let most = (self.end - self.at).min(out.len() as u64) as usize;
        if most == 0 {
            return Ok(0);
        }
        loop {
            self.client.go_on()?;
            let read = match &mut self.body {
                Some(body) => match body.read(&mut out[..most]) {
                    Ok(0) => Err(self.client.unreachable(&"the line was cut")),
                    Ok(n) => Ok(n),
                    Err(error) => Err(self.client.unreachable(&error)),
                },
                None => match self.connect() {
                    Ok(body) => {
                        self.body = Some(body);
                        continue;
                    }
                    Err(failure) => Err(failure),
                },
            };
            match read {
                Ok(n) => {
                    self.at += n as u64;
                    self.tries.has_come();
                    return Ok(n);
                }
                Err(failure) => {
                    self.body = None;
                    self.client.pause(failure, &mut self.tries)?;
                }
            }
        }
    }

    fn connect(&self) -> Result<BodyReader<'static>, Failure> {
        let url = self.repository.address(&self.client, &self.file.path);
        let request = Request {
            url: &url,
            repo: &self.repository.name.id,
            revision: &self.repository.commit,
            file: Some(&self.file.path),
            range: Some((self.at, self.end)),
        };
        let answer = self.client.get(&request)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let wrong = |what: String| {
            Failure::Final(HubError::Answer { host: self.client.settings.host().to_owned(), what })
        };
        let path = &self.file.path;
        let (skip, total) = match answer.status().as_u16() {
            206 => {
                let range = header(CONTENT_RANGE.as_str()).and_then(range);
                let (start, total) =
                    range.ok_or_else(|| wrong(format!("does not tell which part of {path} it sends")))?;
                if start != self.at {
                    return Err(wrong(format!("sends {path} from byte {start} instead of {}", self.at)));
                }
                (0, total)
            }
            // It knows no ranges.
            _ => (self.at, header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok())),
        };
        if let Some(total) = total.filter(|&total| total != self.file.bytes) {
            let wanted = self.file.bytes;
            return Err(wrong(format!("sends {path} with {total} bytes, and it has {wanted}")));
        }
        let mut body = answer.into_body().into_reader();
        let (mut left, mut buffer) = (skip, vec![0; SKIPPED]);
        while left > 0 {
            self.client.go_on().map_err(Failure::Final)?;
            let n = left.min(SKIPPED as u64) as usize;
            match body.read(&mut buffer[..n]) {
                Ok(0) => return Err(self.client.unreachable(&"the line was cut")),
                Ok(n) => left -= n as u64,
                Err(error) => return Err(self.client.unreachable(&error)),
            }
        }
        Ok(body)
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.next(out).map_err(io::Error::other)
    }
}

/// Start and whole length of `bytes 5-9/100`; a length may be unknown.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}
