//! Quantile sketches.

use stele_model::Sketch;

/// What decodes is the same after another encoding, and can be asked anything.
pub fn sketch(data: &[u8]) {
    let Ok(sketch) = Sketch::decode(data) else {
        return;
    };
    let mut again = Vec::new();
    sketch.encode(&mut again);
    assert_eq!(Sketch::decode(&again).as_ref(), Ok(&sketch));
    let quantiles = [0.0, 0.25, 0.5, 0.99, 1.0].map(|q| sketch.quantile(q));
    assert_eq!(sketch.count() == 0, quantiles[0].is_none());
    assert!(quantiles.is_sorted());
    let mut merged = sketch.clone();
    merged.merge(&sketch);
    assert_eq!(merged.count(), sketch.count().saturating_mul(2));
}
