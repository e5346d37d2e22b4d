//! What the log of a server says of why it failed, for its owner.
//!
//! The log is the server's own word: it may explain a failure that is known by other evidence, and never decides whose fault
//! that is.

use crate::adapters::log::last_words;

/// What a log says, and what its owner can do. The first that is found counts, so causes stand before what follows from them.
///
/// The words are those of vLLM 0.32, SGLang 0.5, PyTorch, CUDA and the kernel.
const SYMPTOMS: [(&str, &str); 26] = [
    ("CUDA out of memory", "the model does not fit: give it more GPUs, or less length, batch or cache"),
    (
        "less than desired GPU memory utilization",
        "it asks for more of the GPUs' memory than there is: lower that share",
    ),
    (
        "No available memory for the cache blocks",
        "no room is left for the cache: raise the memory's share or lower the length",
    ),
    (
        "To serve at least one request with the model's max seq len",
        "the cache is too small for the length: lower that",
    ),
    ("Please try to increase --mem-fraction-static", "no room is left for the cache: raise that share"),
    ("Cannot find any model weights with", "the weights are in the folder that CACHEON_MODEL_DIR names"),
    (
        "LocalEntryNotFoundError",
        "nothing can be downloaded: the model is in the folder that CACHEON_MODEL_DIR names",
    ),
    ("huggingface.co", "nothing can be downloaded: the model is in the folder that CACHEON_MODEL_DIR names"),
    (
        "Temporary failure in name resolution",
        "there is no network: everything it needs has to be in the image",
    ),
    ("Network is unreachable", "there is no network: everything it needs has to be in the image"),
    ("Model architectures", "the engine in the image does not know the model"),
    ("Unknown quantization method", "the engine in the image does not know the weights' form"),
    ("must be divisible by tensor parallel size", "the model cannot be split over so many GPUs"),
    ("is larger than the number of available GPUs", "it wants more GPUs than the runner has"),
    ("No CUDA GPUs are available", "it finds no GPU"),
    ("Failed to infer device type", "it finds no GPU"),
    ("libcuda.so.1: cannot open shared object file", "it finds no GPU driver"),
    ("no kernel image is available for execution", "it is not built for this kind of GPU"),
    ("CUDA driver version is insufficient", "it needs a newer driver than the machine has"),
    ("Error while creating shared memory segment", "it takes more shared memory than `limits.shm-mib`"),
    ("can't start new thread", "it starts more threads than `limits.pids`"),
    ("Resource temporarily unavailable", "it starts more processes or threads than `limits.pids`"),
    ("Read-only file system", "only /tmp and /dev/shm can be written"),
    ("No space left on device", "/tmp and /dev/shm are as large as `limits.tmpfs-mib` and `limits.shm-mib`"),
    ("ModuleNotFoundError", "the image lacks a Python module"),
    ("Permission denied", "everything runs as 10001:10001, and only /tmp and /dev/shm can be written"),
];

/// The last line of a log and, where it has words that are known, these with what to do.
pub(super) fn words_of(log: &str) -> String {
    let last = last_words(log);
    match SYMPTOMS.iter().find(|(words, _)| log.contains(words)) {
        Some((words, advice)) => format!("{last} (its log says `{words}`: {advice})"),
        None => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_above_what_follows_from_it() {
        let log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n\
                   RuntimeError: Engine core initialization failed. See root cause above.\n";
        assert_eq!(
            words_of(log),
            "RuntimeError: Engine core initialization failed. See root cause above. (its log says `CUDA out of memory`: the \
             model does not fit: give it more GPUs, or less length, batch or cache)"
        );
        assert_eq!(words_of("listening\n"), "listening");
        assert_eq!(words_of(""), "(nothing)");
    }

    #[test]
    fn each_can_be_found() {
        for (words, advice) in SYMPTOMS {
            assert!(
                words_of(&format!("before {words} after")).ends_with(&format!("`{words}`: {advice})")),
                "{words}"
            );
        }
    }
}
