//! One matrix of the network in each of the number formats and summation orders that the server offers.
//!
//! The plain form is what the weights file says. The blocked one adds its products in another order: an honest
//! server on other hardware. The quantised ones are cheats when a contest asks for the model's own weights.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Module, Result, Tensor};

/// How matrices are stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixFormat {
    /// The matrix as it is, in this type.
    Plain(DType),
    /// The inner dimension cut into blocks whose products are added one after the other, in this type.
    Blocked(DType),
    /// Blocks of 32 weights share a scale; the inputs are quantised to 8 bits on the way.
    Quantised(GgmlDType),
}

impl MatrixFormat {
    /// The type of everything that is not a quantised matrix.
    pub fn dtype(self) -> DType {
        match self {
            Self::Plain(dtype) | Self::Blocked(dtype) => dtype,
            Self::Quantised(_) => DType::F32,
        }
    }
}

/// Number of inputs in one block of the blocked sum.
const BLOCK: usize = 32;

/// A matrix with its bias: `y = x Wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Weight {
    Plain(Tensor),
    Blocked(Vec<Tensor>),
    Quantised(QMatMul),
}

impl Linear {
    /// Takes `weight` as `(out, in)` and `bias` as `(out)`, both in f32.
    ///
    /// # Errors
    /// Fails when a shape does not suit the format.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, format: MatrixFormat) -> Result<Self> {
        let bias = bias.map(|bias| bias.to_dtype(format.dtype())).transpose()?;
        let weight = match format {
            MatrixFormat::Plain(dtype) => Weight::Plain(transposed(weight, dtype)?),
            MatrixFormat::Blocked(dtype) => {
                let weight = transposed(weight, dtype)?;
                let inner = weight.dim(0)?;
                let parts = (0..inner).step_by(BLOCK).map(|at| weight.narrow(0, at, BLOCK.min(inner - at)));
                Weight::Blocked(parts.collect::<Result<_>>()?)
            }
            MatrixFormat::Quantised(kind) => {
                Weight::Quantised(QMatMul::from_qtensor(QTensor::quantize(weight, kind)?)?)
            }
        };
        Ok(Self { weight, bias })
    }
}

/// A matrix as `(in, out)` in memory, which spares small products its packing. Only f16 stays as it is: in that
/// order gemm would add its products in f16, which costs precision that an honest f16 server has.
fn transposed(weight: &Tensor, dtype: DType) -> Result<Tensor> {
    let weight = weight.to_dtype(dtype)?.t()?;
    if dtype == DType::F16 { Ok(weight) } else { weight.contiguous() }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Plain(weight) => x.matmul(weight)?,
            Weight::Blocked(parts) => {
                let mut sum: Option<Tensor> = None;
                for (index, part) in parts.iter().enumerate() {
                    let product = x.narrow(1, index * BLOCK, part.dim(0)?)?.matmul(part)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + product)?,
                        None => product,
                    });
                }
                sum.ok_or_else(|| candle_core::Error::msg("a matrix without columns"))?
            }
            Weight::Quantised(weight) => weight.forward(x)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
