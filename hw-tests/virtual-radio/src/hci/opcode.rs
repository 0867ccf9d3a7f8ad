//! Opcodes that this controller answers, and the table of supported commands by which a host chooses what to send.

macro_rules! opcodes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: u16 = $value;)*

        /// The name of a command in the specification.
        pub fn name(opcode: u16) -> &'static str {
            match opcode { $($value => $text,)* _ => "unknown command" }
        }

        /// All opcodes above, for tests that try each.
        #[cfg(test)]
        pub const ALL: &[u16] = &[$($value),*];
    };
}

opcodes! {
    DISCONNECT = 0x0406, "Disconnect";
    READ_REMOTE_VERSION = 0x041d, "Read Remote Version Information";
    SET_EVENT_MASK = 0x0c01, "Set Event Mask";
    RESET = 0x0c03, "Reset";
    READ_LOCAL_NAME = 0x0c14, "Read Local Name";
    READ_TX_POWER = 0x0c2d, "Read Transmit Power Level";
    SET_EVENT_MASK_PAGE_2 = 0x0c63, "Set Event Mask Page 2";
    READ_LOCAL_VERSION = 0x1001, "Read Local Version Information";
    READ_LOCAL_COMMANDS = 0x1002, "Read Local Supported Commands";
    READ_LOCAL_FEATURES = 0x1003, "Read Local Supported Features";
    READ_BD_ADDR = 0x1009, "Read BD_ADDR";
    READ_RSSI = 0x1405, "Read RSSI";
    LE_SET_EVENT_MASK = 0x2001, "LE Set Event Mask";
    LE_READ_BUFFER_SIZE = 0x2002, "LE Read Buffer Size";
    LE_READ_FEATURES = 0x2003, "LE Read Local Supported Features";
    LE_SET_RANDOM_ADDRESS = 0x2005, "LE Set Random Address";
    LE_SET_ADVERTISING_PARAMETERS = 0x2006, "LE Set Advertising Parameters";
    LE_READ_ADVERTISING_TX_POWER = 0x2007, "LE Read Advertising Channel Tx Power";
    LE_SET_ADVERTISING_DATA = 0x2008, "LE Set Advertising Data";
    LE_SET_SCAN_RESPONSE_DATA = 0x2009, "LE Set Scan Response Data";
    LE_SET_ADVERTISING_ENABLE = 0x200a, "LE Set Advertising Enable";
    LE_SET_SCAN_PARAMETERS = 0x200b, "LE Set Scan Parameters";
    LE_SET_SCAN_ENABLE = 0x200c, "LE Set Scan Enable";
    LE_CREATE_CONNECTION = 0x200d, "LE Create Connection";
    LE_CREATE_CONNECTION_CANCEL = 0x200e, "LE Create Connection Cancel";
    LE_READ_ACCEPT_LIST_SIZE = 0x200f, "LE Read Filter Accept List Size";
    LE_CLEAR_ACCEPT_LIST = 0x2010, "LE Clear Filter Accept List";
    LE_ADD_TO_ACCEPT_LIST = 0x2011, "LE Add Device To Filter Accept List";
    LE_REMOVE_FROM_ACCEPT_LIST = 0x2012, "LE Remove Device From Filter Accept List";
    LE_CONNECTION_UPDATE = 0x2013, "LE Connection Update";
    LE_READ_REMOTE_FEATURES = 0x2016, "LE Read Remote Features";
    LE_RAND = 0x2018, "LE Rand";
    LE_ENABLE_ENCRYPTION = 0x2019, "LE Enable Encryption";
    LE_LTK_REPLY = 0x201a, "LE Long Term Key Request Reply";
    LE_LTK_NEGATIVE_REPLY = 0x201b, "LE Long Term Key Request Negative Reply";
    LE_READ_STATES = 0x201c, "LE Read Supported States";
    LE_SET_DATA_LENGTH = 0x2022, "LE Set Data Length";
    LE_READ_DEFAULT_DATA_LENGTH = 0x2023, "LE Read Suggested Default Data Length";
    LE_WRITE_DEFAULT_DATA_LENGTH = 0x2024, "LE Write Suggested Default Data Length";
    LE_READ_MAX_DATA_LENGTH = 0x202f, "LE Read Maximum Data Length";
    LE_READ_PHY = 0x2030, "LE Read PHY";
    LE_SET_DEFAULT_PHY = 0x2031, "LE Set Default PHY";
    LE_SET_PHY = 0x2032, "LE Set PHY";
    LE_SET_SET_RANDOM_ADDRESS = 0x2035, "LE Set Advertising Set Random Address";
    LE_SET_EXT_ADVERTISING_PARAMETERS = 0x2036, "LE Set Extended Advertising Parameters";
    LE_SET_EXT_ADVERTISING_DATA = 0x2037, "LE Set Extended Advertising Data";
    LE_SET_EXT_SCAN_RESPONSE_DATA = 0x2038, "LE Set Extended Scan Response Data";
    LE_SET_EXT_ADVERTISING_ENABLE = 0x2039, "LE Set Extended Advertising Enable";
    LE_READ_MAX_ADVERTISING_LENGTH = 0x203a, "LE Read Maximum Advertising Data Length";
    LE_READ_ADVERTISING_SETS = 0x203b, "LE Read Number of Supported Advertising Sets";
    LE_REMOVE_ADVERTISING_SET = 0x203c, "LE Remove Advertising Set";
    LE_CLEAR_ADVERTISING_SETS = 0x203d, "LE Clear Advertising Sets";
    LE_SET_EXT_SCAN_PARAMETERS = 0x2041, "LE Set Extended Scan Parameters";
    LE_SET_EXT_SCAN_ENABLE = 0x2042, "LE Set Extended Scan Enable";
    LE_EXT_CREATE_CONNECTION = 0x2043, "LE Extended Create Connection";
}

/// What a controller can do beyond 4.0; a host sends only commands of what is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Data length extension: PDUs of up to 251 octets instead of 27.
    pub data_length: bool,
    /// 2M PHY.
    pub two_m: bool,
    /// Extended advertising and scanning; without it the host uses the legacy commands.
    pub extended_advertising: bool,
}

impl Capabilities {
    /// LE features (Core 5.2, Vol 6, Part B, 4.6): encryption and peripheral feature exchange always. LL privacy is left off, so
    /// that the host resolves addresses itself.
    pub fn le_features(self) -> [u8; 8] {
        let mut features = [0u8; 8];
        features[0] = 0x01 | 0x08 | if self.data_length { 0x20 } else { 0 };
        features[1] = if self.two_m { 0x01 } else { 0 } | if self.extended_advertising { 0x10 } else { 0 };
        features
    }

    /// Supported commands by octet and bit (Core 5.2, Vol 4, Part E, 6.27). P-256 and LE Encrypt are left off: the host then does
    /// its own cryptography.
    pub fn supported_commands(self) -> [u8; 64] {
        let mut commands = [0u8; 64];
        let always: [(usize, u8); 12] = [
            (0, 0x20),                // Disconnect
            (2, 0x80),                // Read Remote Version
            (5, 0x40 | 0x80),         // Set Event Mask, Reset
            (10, 0x04),               // Read Transmit Power Level
            (14, 0x08 | 0x20),        // Read Local Version, Read Local Features
            (15, 0x02 | 0x20),        // Read BD_ADDR, Read RSSI
            (25, 0xf7), // LE event mask, buffer size, features, random address, legacy advertising
            (26, 0xff), // legacy scan response, enable, scanning, connecting, accept list size and clear
            (27, 0x07 | 0x20 | 0x80), // accept list add and remove, connection update, remote features, rand
            (28, 0x0f), // enable encryption, LTK replies, states
            (33, 0x00),
            (35, 0x00),
        ];
        for (octet, bits) in always {
            commands[octet] |= bits;
        }
        if self.data_length {
            commands[33] |= 0x40 | 0x80; // Set Data Length, Read Suggested Default
            commands[34] |= 0x01; // Write Suggested Default
            commands[35] |= 0x08; // Read Maximum
        }
        if self.two_m {
            commands[35] |= 0x10 | 0x20 | 0x40; // Read PHY, Set Default PHY, Set PHY
        }
        if self.extended_advertising {
            commands[36] |= 0xfe; // extended advertising
            commands[37] |= 0x03 | 0x20 | 0x40 | 0x80; // remove and clear sets, extended scan, extended create connection
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_that_kernel_6_1_was_seen_to_take() {
        let all = Capabilities { data_length: true, two_m: true, extended_advertising: true };
        assert_eq!(all.le_features(), [0x29, 0x11, 0, 0, 0, 0, 0, 0]);
        let mut seen = [0u8; 64];
        seen[..38].copy_from_slice(&[
            0x20, 0, 0x80, 0, 0, 0xc0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0x28, 0x22, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0xf7, 0xff, 0xa7, 0x0f, 0, 0, 0, 0, 0xc0, 0x01, 0x78, 0xfe, 0xe3,
        ]);
        assert_eq!(all.supported_commands(), seen);
    }
}
