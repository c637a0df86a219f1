//! The model table: which sizes a GPU model is asked for and how fast it ought to be.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::context::{KernelVariant, Mode};
use crate::parameters::Parameters;
use crate::timing::{Baseline, PhaseBaseline};

/// The table that is built in: `config/gpu-models.toml`.
const EMBEDDED: &str = include_str!("../../config/gpu-models.toml");

/// Thousandths of a device's memory that a fill may take: contexts, a product, its tree and the
/// records need the rest.
const MAX_FILL_PERMILLE: u64 = 960;

/// Sizes and times of one mode on one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The sizes, checked while they are read.
    pub sizes: Parameters,
    /// The fill.
    pub fill: PhaseBaseline,
    /// The chains with their commitment.
    pub chain: PhaseBaseline,
    /// One product with its commitment.
    pub gemm: PhaseBaseline,
}

impl Profile {
    /// The times alone.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        Baseline { fill: self.fill, chain: self.chain, gemm: self.gemm }
    }
}

/// One GPU model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Number in the context.
    pub id: u16,
    /// Our name.
    pub name: String,
    /// The names by which the driver calls it.
    pub driver_names: Vec<String>,
    /// Compute capability, major and minor.
    pub compute_capability: [u8; 2],
    /// Memory the driver reports, bytes.
    pub memory_bytes: u64,
    /// Kernels that the times are for.
    pub variant: KernelVariant,
    /// Quick and hold mode.
    pub quick: Profile,
    /// Deep mode.
    pub deep: Profile,
}

impl Model {
    /// The profile of a mode.
    #[must_use]
    pub fn profile(&self, mode: Mode) -> &Profile {
        match mode {
            Mode::Quick | Mode::Hold => &self.quick,
            Mode::Deep => &self.deep,
        }
    }
}

/// All models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    model: Vec<Model>,
}

/// Why a text is no model table.
#[derive(Debug, thiserror::Error)]
pub enum ModelTableError {
    /// Not TOML, a missing or unknown key, or impossible sizes.
    #[error("cannot read the model table")]
    Toml(#[from] toml::de::Error),
    /// Two models share a number or a name.
    #[error("two models of the table have the {what} {value}")]
    Duplicate {
        /// `id` or `driver name`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A fill does not leave room for what else is needed.
    #[error("the {mode} fill of {model} takes {fill_bytes} of {memory_bytes} bytes")]
    FillTooLarge {
        /// The model.
        model: String,
        /// `quick` or `deep`.
        mode: &'static str,
        /// Bytes of the fill.
        fill_bytes: u64,
        /// Bytes of the device.
        memory_bytes: u64,
    },
    /// A phase is expected to be faster than its floor.
    #[error("{model} has a phase whose expected time is below its floor")]
    BelowFloor {
        /// The model.
        model: String,
    },
}

impl ModelTable {
    /// The built-in table.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static TABLE: OnceLock<ModelTable> = OnceLock::new();
        TABLE.get_or_init(|| {
            Self::parse(EMBEDDED)
                .expect("a test parses this very text, which is part of the binary")
        })
    }

    /// Reads a table, as for instance one with an operator's own measurements.
    ///
    /// # Errors
    /// [`ModelTableError`] for text that is no table and for entries that contradict themselves.
    pub fn parse(text: &str) -> Result<Self, ModelTableError> {
        let table: Self = toml::from_str(text)?;
        Self::checked(table.model)
    }

    /// A table of these models.
    ///
    /// # Errors
    /// As [`Self::parse`], for entries that contradict themselves or each other.
    pub fn checked(model: Vec<Model>) -> Result<Self, ModelTableError> {
        let table = Self { model };
        let mut ids: Vec<_> = table.model.iter().map(|model| model.id).collect();
        ids.sort_unstable();
        if let Some(id) = duplicate(&ids) {
            return Err(ModelTableError::Duplicate { what: "id", value: id.to_string() });
        }
        let mut names: Vec<_> = table.model.iter().flat_map(|model| &model.driver_names).collect();
        names.sort_unstable();
        if let Some(name) = duplicate(&names) {
            return Err(ModelTableError::Duplicate {
                what: "driver name",
                value: name.to_string(),
            });
        }
        table.model.iter().try_for_each(check)?;
        Ok(table)
    }

    /// All models, in the table's order.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.model
    }

    /// The model of a number.
    #[must_use]
    pub fn by_id(&self, id: u16) -> Option<&Model> {
        self.model.iter().find(|model| model.id == id)
    }

    /// The model the driver calls `name`. The name selects what is *claimed*; the times judge it.
    #[must_use]
    pub fn by_driver_name(&self, name: &str) -> Option<&Model> {
        self.model.iter().find(|model| model.driver_names.iter().any(|known| known == name))
    }
}

fn duplicate<T: PartialEq>(sorted: &[T]) -> Option<&T> {
    sorted.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(a),
        _ => None,
    })
}

fn check(model: &Model) -> Result<(), ModelTableError> {
    for (mode, profile) in [("quick", &model.quick), ("deep", &model.deep)] {
        let fill_bytes = profile.sizes.memory_bytes();
        if u128::from(fill_bytes) * 1000
            > u128::from(model.memory_bytes) * u128::from(MAX_FILL_PERMILLE)
        {
            return Err(ModelTableError::FillTooLarge {
                model: model.name.clone(),
                mode,
                fill_bytes,
                memory_bytes: model.memory_bytes,
            });
        }
        let phases = [profile.fill, profile.chain, profile.gemm];
        if phases.iter().any(|phase| phase.expected_us < phase.floor_us || phase.floor_us == 0) {
            return Err(ModelTableError::BelowFloor { model: model.name.clone() });
        }
    }
    Ok(())
}
