//! Imports an image and prints where its layers lie: `import STORE IMAGE`.

use std::path::Path;
use std::time::Instant;

use sandbox_image::{Event, ImageError, ImageSource, ImageStore, Progress, PullPolicy};

struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Resolving { reference } => eprintln!("resolving {reference}"),
            Event::LayerReady { layer, reused } => eprintln!("{layer} reused={reused}"),
            Event::Note { text } | Event::Waiting { what: text } => eprintln!("{text}"),
            _ => {}
        }
    }
}

fn main() -> Result<(), ImageError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, image] = arguments.as_slice() else {
        eprintln!("usage: import STORE IMAGE");
        std::process::exit(2);
    };
    let begin = Instant::now();
    let store = ImageStore::open(Path::new(store))?;
    let image = store.resolve(&ImageSource::parse(image)?, PullPolicy::Missing, &Lines)?;
    eprintln!(
        "{} {:?} in {:?}",
        image.digest,
        image.names,
        begin.elapsed()
    );
    for layer in &image.layers {
        println!("{}", layer.display());
    }
    Ok(())
}
