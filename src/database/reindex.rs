//! Building indexes anew.

use super::{Database, DatabaseError};

impl Database {
    /// Builds all indexes of all collections anew, in the background as when they are made; queries read documents meanwhile. No
    /// release that we know of needs it: `verify` tells whether an index is right, and what is found to be wrong is built anew by
    /// itself. Gives how many there are.
    ///
    /// # Errors
    /// Of the store; an index that was dropped and not made again is then not there any more.
    pub fn reindex(&self) -> Result<usize, DatabaseError> {
        let mut count = 0;
        for name in self.collections() {
            let Some(collection) = self.collection(&name) else { continue };
            for index in collection.indexes()? {
                collection.drop_index(&index.name)?;
                collection.create_index(&index.name, index.paths)?;
                count += 1;
            }
        }
        Ok(count)
    }
}
