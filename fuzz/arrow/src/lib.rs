//! What src names of the crate `arrow`, without its parts that take longer to build than all the rest.

pub use arrow_buffer::buffer;

pub mod array {
    pub use arrow_array::builder::make_view;
    pub use arrow_array::cast::AsArray;
    pub use arrow_array::*;
    pub use arrow_data::ByteView;
}

pub mod compute {
    pub use arrow_select::concat::{concat, concat_batches};
    pub use arrow_select::filter::{filter, filter_record_batch};

    use arrow_array::{Array, ArrayRef};
    use arrow_schema::{ArrowError, DataType};

    /// Only where there is nothing to do: the targets declare columns as they are made.
    pub fn cast(values: &dyn Array, to: &DataType) -> Result<ArrayRef, ArrowError> {
        assert_eq!(values.data_type(), to);
        Ok(arrow_array::make_array(values.to_data()))
    }
}

pub mod datatypes {
    pub use arrow_array::types::*;
    pub use arrow_array::{ArrowNumericType, ArrowPrimitiveType};
    pub use arrow_schema::*;
}

pub mod error {
    pub use arrow_schema::ArrowError;
}
