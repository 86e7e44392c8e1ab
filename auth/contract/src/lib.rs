//! What issuer and edge must agree on: claims and revocation entries
