"""Networks: bodies, necks, proposal network, region heads and the detectors made of them (floor 3)."""
