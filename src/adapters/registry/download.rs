//! A blob of a registry, brought into a file: gone on with where it was cut, and given up where nothing comes.

use std::io::SeekFrom;
use std::path::Path;

use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};

use super::RegistryError;
use super::client::Client;
use super::manifest::Blob;

/// Told how many more bytes have arrived; less than none where some are to be fetched again.
pub(super) type Arrived<'a> = dyn Fn(i64) + Send + Sync + 'a;

impl Client {
    /// Brings a blob into a file, which may have the beginning of it. That the bytes are the right ones is for others to see.
    ///
    /// # Errors
    /// The registry has none, has one of another size, or does not give it whole; or the file cannot be written.
    pub(super) async fn download(
        &self,
        blob: &Blob,
        path: &Path,
        arrived: &Arrived<'_>,
    ) -> Result<(), RegistryError> {
        let mut pauses = self.patience.pauses.iter();
        let mut length = length_of(path).await?;
        arrived(length.min(blob.size).cast_signed());
        while length < blob.size {
            let tried = self.go_on(blob, (path, length), arrived).await;
            let before = std::mem::replace(&mut length, length_of(path).await?);
            match tried {
                Ok(()) if length >= blob.size => {}
                Ok(()) => return Err(self.unavailable("it ended before the end of a layer".to_owned())),
                Err(RegistryError::Unavailable { why, after, host }) => {
                    // Who gives something is asked again as often as that lasts.
                    if length >= before.saturating_add(self.patience.least_bytes) {
                        pauses = self.patience.pauses.iter();
                    }
                    let Some(pause) = pauses.next() else {
                        return Err(RegistryError::Unavailable { why, after, host });
                    };
                    tracing::info!(
                        host,
                        why,
                        length,
                        of = blob.size,
                        "a layer was cut off, and is gone on with"
                    );
                    tokio::time::sleep(self.patience.pause(*pause, after)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks for what is missing, and writes it as it comes.
    async fn go_on(
        &self,
        blob: &Blob,
        (path, length): (&Path, u64),
        arrived: &Arrived<'_>,
    ) -> Result<(), RegistryError> {
        let mut headers = HeaderMap::new();
        if length > 0 {
            let range = HeaderValue::try_from(format!("bytes={length}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let mut response = self.get(&self.endpoint.blob(&blob.digest), &headers).await?;
        let (start, total) = match response.status().as_u16() {
            206 => content_range(response.headers()).unwrap_or((u64::MAX, None)),
            _ => (0, response.content_length()),
        };
        if let Some(total) = total.filter(|total| *total != blob.size) {
            return Err(RegistryError::Invalid(format!(
                "its manifest says that layer {} has {} bytes, the registry has {total}",
                blob.digest, blob.size
            )));
        }
        // One that cannot go on begins again.
        if ![0, length].contains(&start) {
            return Err(self.unavailable("it gave another part of a layer than was asked for".to_owned()));
        }
        let disk = |source| RegistryError::Disk { attempted: "keep a layer", path: path.to_owned(), source };
        let file = tokio::fs::OpenOptions::new().create(true).write(true).truncate(false).open(path).await;
        let mut file = file.map_err(disk)?;
        file.set_len(start).await.map_err(disk)?;
        file.seek(SeekFrom::Start(start)).await.map_err(disk)?;
        arrived(start.cast_signed() - length.cast_signed());
        let mut file = BufWriter::with_capacity(1 << 18, file);
        let mut left = blob.size - start;
        let outcome = loop {
            let mut wanted = self.patience.least_bytes.min(left);
            let some = async {
                loop {
                    let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? else {
                        return Ok(false);
                    };
                    let size = chunk.len() as u64;
                    if size > left {
                        return Err(RegistryError::Invalid(format!(
                            "layer {} is longer than its manifest says",
                            blob.digest
                        )));
                    }
                    file.write_all(&chunk).await.map_err(disk)?;
                    arrived(size.cast_signed());
                    left -= size;
                    wanted = wanted.saturating_sub(size);
                    if wanted == 0 && left > 0 {
                        return Ok(true);
                    }
                }
            };
            match tokio::time::timeout(self.patience.window, some).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break Ok(()),
                Ok(Err(error)) => break Err(error),
                Err(_) => {
                    break Err(self.unavailable(format!(
                        "fewer than {} bytes of a layer in {} s",
                        self.patience.least_bytes,
                        self.patience.window.as_secs_f64()
                    )));
                }
            }
        };
        // What has come is kept, however it ended.
        file.flush().await.map_err(disk)?;
        outcome
    }
}

/// Where a part begins, and how long the whole is where that is said: `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (part, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

async fn length_of(path: &Path) -> Result<u64, RegistryError> {
    match tokio::fs::metadata(path).await {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(source) => {
            Err(RegistryError::Disk { attempted: "look for a layer", path: path.to_owned(), source })
        }
    }
}
