"""Networks: backbones, necks, RPN, RoI heads, one-stage heads and the detectors made of them."""
