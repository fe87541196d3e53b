"""SipMask: masks from spatially preserved coefficients and basis masks (Cao et al. 2020)."""
