//! The one door for what stands beside the library: the project's own tests, rigs, benches and fuzz targets, which need
//! more of it than its users do. The feature `lab` opens it. No promise is made for what is here.

/// Every layer with all its modules, at the place that it has inside.
macro_rules! layers {
    ($($layer:ident)*) => {$(
        #[allow(missing_docs)]
        pub mod $layer {
            pub use crate::$layer::*;
        }
    )*};
}

layers!(blip link node replica secure time transport trust);
#[cfg(feature = "simulation")]
layers!(simulation);
#[cfg(feature = "fuzzing")]
layers!(fuzzing);

/// Modules of the layers that users see in part.
macro_rules! rooms {
    ($layer:ident: $($room:ident)*) => {
        #[allow(missing_docs)]
        pub mod $layer {
            pub use crate::$layer::*;
            $(pub mod $room {
                pub use crate::$layer::$room::*;
            })*
        }
    };
}

rooms!(endpoint: framing);
rooms!(replicator: checkpoint config error event extension messages resolver sequences service session unsynced);
#[cfg(not(feature = "test-faults"))]
rooms!(database: config);
#[cfg(feature = "test-faults")]
rooms!(database: config faults);
