"""Every configuration key with its default and its meaning.

The two-stage keys and defaults are those of maskrcnn-benchmark (maskrcnn_benchmark/config/defaults.py),
except MODEL.DEVICE and PATHS_CATALOG; the LST keys follow the released LST branches and the phase scheduler.
Sections of families from outside the package come from their records (`config/models.py`).
"""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.models import families

# Keys whose value may have another type than their default.
ALTERNATIVE_TYPES: dict[str, tuple[type, ...]] = {"LST.STEP_SIZE": (int, tuple)}

# Nodes filled by the user, whose keys and types are those of another node.
TEMPLATES: dict[str, str] = {"LST.SOLVER_BASE": "SOLVER", "LST.SOLVER_STEP": "SOLVER"}

# Nodes filled by the user with named entries, and the keys of an entry.
ENTRIES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "DATASETS.REGISTER": {"KIND": "", "ANN_FILE": "", "IMG_DIR": "", "CLASSES": ()}
}


def get_cfg() -> CfgNode:
    """Return a fresh, unfrozen tree of all keys with their defaults."""
    cfg = CfgNode()
    cfg.MODEL = _model()
    cfg.INPUT = _input()
    cfg.DATASETS = _datasets()
    cfg.DATALOADER = _dataloader()
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    cfg.LST = _lst()

    cfg.OUTPUT_DIR = "."  # folder of everything that a run writes
    cfg.PATHS_CATALOG = (
        ""  # user's Python file with DatasetCatalog and ModelCatalog; "" = packaged names only
    )
    cfg.DTYPE = "float32"  # float32 | float16 | bfloat16; the latter two are mixed precision
    cfg.AMP_VERBOSE = False  # no effect; read from published files
    cfg.SEED = 0  # seed of everything random in a run
    cfg.TENSORBOARD_EXPERIMENT = (
        "logs/maskrcnn-benchmark"  # no effect; event files go to OUTPUT_DIR/tensorboard
    )
    for family in families():
        if family.defaults is not None:
            cfg.MODEL[family.section] = family.defaults()
    return cfg


def _model() -> CfgNode:
    model = CfgNode()
    # Model family: rcnn | rpn | retinanet | fcos | sipmask, or one registered from outside; "" = by the
    # published switches RPN_ONLY, RETINANET_ON, FCOS_ON and SIPMASK_ON, without any of them rcnn (two-stage).
    model.HEAD = ""
    # Between backbone and head: fpn (P2..P6) | fpn_p6p7 (P3..P7) | none; "" = by the ending of
    # BACKBONE.CONV_BODY (-FPN, -FPN-RETINANET, -C4, -C5), without one what the family needs.
    model.NECK = ""
    model.RPN_ONLY = False  # no RoI heads: the result is the proposals
    model.MASK_ON = False  # add the mask head
    model.RETINANET_ON = False  # RetinaNet in place of RPN and heads
    model.FCOS_ON = False  # FCOS in place of RPN and heads
    model.SIPMASK_ON = False  # SipMask (FCOS with masks) in place of RPN and heads
    model.USE_SYNCBN = False  # no effect; read from published FCOS files
    model.KEYPOINT_ON = False  # add the keypoint head
    model.DEVICE = "auto"  # auto (GPU if there is one, else CPU) | cpu | cuda | cuda:N
    model.META_ARCHITECTURE = "GeneralizedRCNN"  # detector class, by its registered name
    model.CLS_AGNOSTIC_BBOX_REG = False  # box regression for background/foreground instead of per class
    model.WEIGHT = ""  # initial weights: path, http(s) URL or catalog://NAME; .pkl is Caffe2; "" = none
    model.WEIGHT_ALLOW_MISMATCH = False  # leave out tensors of WEIGHT that do not fit, instead of an error

    # Long-tail training in phases; set per phase by the LST scheduler.
    model.QRY_BALANCE = False  # every image comes with the class that it was sampled for
    model.QRY_INDICE_CLS = ""  # published replay plan: file of the class labels ("" = plan made online)
    model.QRY_INDICE_IMG = (
        ""  # its file of image indices; "" = beside QRY_INDICE_CLS, named indices for classes
    )
    model.USE_DISTILL = False  # add loss_distill on boxes of new classes
    model.DISTILL_WEIGHTS_FILE = (
        ""  # stored logits: published file or folder of a store ("" = the scheduler's)
    )
    model.NUM_DISTILL_CLASSES = 270  # foreground classes of the previous phase's model
    model.GENERATE_DISTILL = False  # without LST.ENABLED: store the logits of WEIGHT instead of training

    model.BACKBONE = _backbone()
    model.FPN = _fpn()
    model.GROUP_NORM = _group_norm()
    model.RESNETS = _resnets()
    model.RPN = _rpn()
    model.ROI_HEADS = _roi_heads()
    model.ROI_BOX_HEAD = _roi_box_head()
    model.ROI_MASK_HEAD = _roi_mask_head()
    model.ROI_KEYPOINT_HEAD = _roi_keypoint_head()
    model.RETINANET = _retinanet()
    model.FCOS = _fcos()
    model.SIPMASK = _sipmask()
    model.FBNET = _fbnet()
    model.FEW_SHOT = CfgNode()
    model.FEW_SHOT.ScaleCls = 10.0  # initial scale of the cosine classifier
    return model


def _backbone() -> CfgNode:
    node = CfgNode()
    # Backbone, by its registered name, which may end in a published name of a neck (see MODEL.NECK),
    # or "torchvision/<model>".
    node.CONV_BODY = "R-50-C4"
    node.NORM = "frozen"  # batch norm of torchvision backbones: frozen | train (behind the frozen stages)
    node.FREEZE_CONV_BODY_AT = 2  # first stages without gradient: 1 stem, 2 + layer1, ... 5 all; < 1 none
    return node


def _fpn() -> CfgNode:
    node = CfgNode()
    node.USE_GN = False  # group norm behind every FPN convolution
    node.USE_RELU = False  # ReLU behind every FPN convolution
    return node


def _group_norm() -> CfgNode:
    node = CfgNode()
    node.DIM_PER_GP = -1  # channels per group; exclusive with NUM_GROUPS, the other one is -1
    node.NUM_GROUPS = 32  # groups
    node.EPSILON = 1e-5  # added to the variance
    return node


def _resnets() -> CfgNode:
    node = CfgNode()
    node.NUM_GROUPS = 1  # groups of the 3x3 convolutions; 1 = ResNet, 32 = ResNeXt
    node.WIDTH_PER_GROUP = 64  # channels per group of the first stage's bottleneck
    node.STRIDE_IN_1X1 = True  # stride in the first 1x1; True for MSRA files, False for ResNeXt and GN
    node.TRANS_FUNC = (
        "BottleneckWithFixedBatchNorm"  # residual block: Bottleneck/BasicBlock With FixedBatchNorm/GN
    )
    node.STEM_FUNC = "StemWithFixedBatchNorm"  # first convolution: StemWithFixedBatchNorm | StemWithGN
    node.RES5_DILATION = 1  # dilation of layer4 in the C4 box head
    node.BACKBONE_OUT_CHANNELS = 1024  # channels of the output: 1024 for C4, the FPN's width (256) for FPN
    node.RES2_OUT_CHANNELS = 256  # channels of layer1's output, doubled at every stage
    node.STEM_OUT_CHANNELS = 64  # channels of the stem
    node.STAGE_WITH_DCN = (False, False, False, False)  # deformable 3x3 convolutions in layer1..4
    node.WITH_MODULATED_DCN = False  # modulated (v2) deformable convolution
    node.DEFORMABLE_GROUPS = 1  # offset groups of deformable convolutions
    node.DCN_INTERVAL = 1  # blocks of a STAGE_WITH_DCN stage that are deformable: every n-th, from the first
    node.FROZEN_BN_EPS = 0.0  # added to the variance of frozen batch norm; files of mmdetection: 1e-5
    return node


def _rpn() -> CfgNode:
    node = CfgNode()
    node.USE_FPN = False  # several feature levels
    node.ANCHOR_SIZES = (32, 64, 128, 256, 512)  # square root of the area in pixels; with FPN one per level
    node.ANCHOR_STRIDE = (16,)  # stride of every feature level
    node.ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
    node.STRADDLE_THRESH = 0  # pixels by which a trained anchor may leave the image; < 0 no limit
    node.FG_IOU_THRESHOLD = 0.7  # anchors from this IoU on are positive
    node.BG_IOU_THRESHOLD = 0.3  # anchors below this IoU are negative
    node.BATCH_SIZE_PER_IMAGE = 256  # anchors sampled for the loss
    node.POSITIVE_FRACTION = 0.5  # maximum fraction of positives among them
    node.PRE_NMS_TOP_N_TRAIN = 12000  # best anchors per level before NMS, training
    node.PRE_NMS_TOP_N_TEST = 6000  # the same, testing
    node.POST_NMS_TOP_N_TRAIN = 2000  # proposals per level after NMS, training
    node.POST_NMS_TOP_N_TEST = 1000  # the same, testing
    node.NMS_THRESH = 0.7  # IoU above which NMS removes
    node.MIN_SIZE = 0  # minimum width and height of a proposal
    node.FPN_POST_NMS_TOP_N_TRAIN = 2000  # proposals over all levels, training (see PER_BATCH)
    node.FPN_POST_NMS_TOP_N_TEST = 2000  # proposals over all levels per image, testing
    node.FPN_POST_NMS_PER_BATCH = True  # parity: ..._TRAIN counts over the images of a process, not of one
    node.RPN_HEAD = "SingleConvRPNHead"  # head, by its registered name
    node.ZERO_OVERLAP_MATCHES = (
        True  # parity: an object whose IoU with all anchors is 0 makes all of those positive
    )
    return node


def _roi_heads() -> CfgNode:
    node = CfgNode()
    node.USE_FPN = False  # no effect; read from published files
    node.FG_IOU_THRESHOLD = 0.5  # proposals from this IoU on take the object's class
    node.BG_IOU_THRESHOLD = 0.5  # proposals below this IoU are background
    node.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # factors of dx, dy, dw, dh
    node.BATCH_SIZE_PER_IMAGE = 512  # proposals sampled for the loss
    node.POSITIVE_FRACTION = 0.25  # maximum fraction of positives among them
    node.SCORE_THRESH = 0.05  # detections must score more than this
    node.NMS = 0.5  # IoU above which NMS removes, per class
    node.DETECTIONS_PER_IMG = 100  # best detections over all classes; <= 0 no limit
    return node


def _roi_box_head() -> CfgNode:
    node = CfgNode()
    node.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"  # by its registered name
    node.PREDICTOR = "FastRCNNPredictor"  # by its registered name
    node.POOLER_RESOLUTION = 14  # side of the pooled features
    node.POOLER_SAMPLING_RATIO = 0  # points per bin and axis; 0 = as many as pixels
    node.POOLER_SCALES = (1.0 / 16,)  # scale of every feature level that is pooled from
    node.NUM_CLASSES = 81  # classes with background; also of the mask head
    node.MLP_HEAD_DIM = 1024  # width of fc6 and fc7
    node.USE_GN = False  # group norm in the head
    node.DILATION = 1  # of the convolutions of Xconv1fc
    node.CONV_HEAD_DIM = 256  # width of the convolutions of Xconv1fc
    node.NUM_STACKED_CONVS = 4  # number of the convolutions of Xconv1fc
    return node


def _roi_mask_head() -> CfgNode:
    node = CfgNode()
    node.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"  # by its registered name
    node.PREDICTOR = "MaskRCNNC4Predictor"  # by its registered name
    node.POOLER_RESOLUTION = 14  # side of the pooled features
    node.POOLER_SAMPLING_RATIO = 0  # points per bin and axis; 0 = as many as pixels
    node.POOLER_SCALES = (1.0 / 16,)  # scale of every feature level that is pooled from
    node.MLP_HEAD_DIM = 1024  # no effect; read from published files
    node.CONV_LAYERS = (256, 256, 256, 256)  # widths of the 3x3 convolutions
    node.RESOLUTION = 14  # side of mask logits and targets: twice the pooled side (C4: equal to it)
    node.SHARE_BOX_FEATURE_EXTRACTOR = True  # use the box head's features (C4 models)
    node.POSTPROCESS_MASKS = False  # paste masks into the network's input size inside the model
    node.POSTPROCESS_MASKS_THRESHOLD = 0.5  # probability above which a pasted pixel is set
    node.DILATION = 1  # of the 3x3 convolutions
    node.USE_GN = False  # group norm in the head
    node.USE_BBOX2MASK = False  # mask weights of a class are computed from its classifier weights
    node.USE_MLPMASK = False  # add a class-agnostic mask from a linear layer (needs USE_BBOX2MASK)
    return node


def _roi_keypoint_head() -> CfgNode:
    node = CfgNode()
    node.FEATURE_EXTRACTOR = "KeypointRCNNFeatureExtractor"  # by its registered name
    node.PREDICTOR = "KeypointRCNNPredictor"  # by its registered name
    node.POOLER_RESOLUTION = 14  # side of the pooled features
    node.POOLER_SAMPLING_RATIO = 0  # points per bin and axis; 0 = as many as pixels
    node.POOLER_SCALES = (1.0 / 16,)  # scale of every feature level that is pooled from
    node.MLP_HEAD_DIM = 1024  # no effect; read from published files
    node.CONV_LAYERS = (512, 512, 512, 512, 512, 512, 512, 512)  # widths of the 3x3 convolutions
    node.RESOLUTION = 14  # side of the keypoint heat maps
    node.NUM_CLASSES = 17  # number of keypoints
    node.MIN_KEYPOINTS_PER_IMAGE = 10  # training leaves out images with fewer labelled keypoints
    node.SHARE_BOX_FEATURE_EXTRACTOR = True  # use the box head's features
    return node


def _retinanet() -> CfgNode:
    node = CfgNode()
    node.NUM_CLASSES = 81  # classes with background (there is no background output)
    node.ANCHOR_SIZES = (32, 64, 128, 256, 512)  # base size per level
    node.ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
    node.ANCHOR_STRIDES = (8, 16, 32, 64, 128)  # stride per level
    node.STRADDLE_THRESH = 0  # no effect: all anchors count; read from published files
    node.OCTAVE = 2.0  # sizes of a level span this factor
    node.SCALES_PER_OCTAVE = 3  # sizes per level
    node.USE_C5 = True  # level P6 from C5, else from P5
    node.NUM_CONVS = 4  # convolutions per tower
    node.BBOX_REG_WEIGHT = 4.0  # divides the regression loss
    node.BBOX_REG_BETA = 0.11  # where smooth L1 becomes linear
    node.PRE_NMS_TOP_N = 1000  # best (location, class) pairs per level
    node.FG_IOU_THRESHOLD = 0.5  # anchors from this IoU on are positive
    node.BG_IOU_THRESHOLD = 0.4  # anchors below this IoU are negative
    node.LOSS_ALPHA = 0.25  # focal loss: weight of positives
    node.LOSS_GAMMA = 2.0  # focal loss: exponent
    node.PRIOR_PROB = 0.01  # initial probability of every class
    node.INFERENCE_TH = 0.05  # detections must score more than this
    node.NMS_TH = 0.4  # IoU above which NMS removes, per class
    return node


def _fcos() -> CfgNode:
    node = CfgNode()
    node.NUM_CLASSES = 81  # classes with background (there is no background output)
    node.FPN_STRIDES = [8, 16, 32, 64, 128]  # stride per level
    node.PRIOR_PROB = 0.01  # initial probability of every class
    node.INFERENCE_TH = 0.05  # detections must score more than this
    node.NMS_TH = 0.6  # IoU above which NMS removes, per class
    node.PRE_NMS_TOP_N = 1000  # best candidates per level
    node.LOSS_ALPHA = 0.25  # focal loss: weight of positives
    node.LOSS_GAMMA = 2.0  # focal loss: exponent
    node.NUM_CONVS = 4  # convolutions per tower
    node.CENTER_SAMPLING_RADIUS = 0.0  # positives lie this many strides around a box's centre; 0 = in the box
    node.IOU_LOSS_TYPE = "iou"  # iou | linear_iou | giou
    node.NORM_REG_TARGETS = False  # distances are predicted in strides and rectified, else as exponentials
    node.CENTERNESS_ON_REG = False  # centerness is read from the box tower, else from the class tower
    node.USE_DCN_IN_TOWER = False  # modulated deformable convolution as the last one of both towers
    return node


def _sipmask() -> CfgNode:
    node = _fcos()  # the same keys, with the class tower one convolution shorter
    node.IOU_LOSS_TYPE = "iou"  # iou | linear_iou | giou | inclusive_iou (SipMask of mmdetection)
    # What tells the two published families apart; the defaults are those of SipMask-benchmark.
    node.TOWER_NORM = "GN"  # norm of the towers and of the alignment: GN | "" (none)
    node.TOWER_BIAS = True  # convolutions of the towers have a bias
    node.ALIGN_BIAS = True  # the deformable convolution of the alignment has a bias
    node.DISTANCES = (
        "positive"  # with NORM_REG_TARGETS: positive (rectified) | any (as predicted, mmdetection)
    )
    node.NUM_BASIS = 32  # basis masks
    node.LOSS_NORMALIZER = "global"  # positives are counted over all processes (global) or each (per_process)
    node.MASK_TRAIN_NMS = 0.9  # IoU above which NMS takes positives from the mask loss; <= 0 none
    node.MASK_LOSS_HALVING = True  # parity: a mask loss above 1 is halved
    node.MASK_WEIGHT_EPS = 0.0  # added to the sum that normalises the weights of the mask loss
    node.SCORE_SQRT = True  # the score is the root of class score times centerness
    node.THRESHOLD_ON = "class"  # INFERENCE_TH is compared with: class (class score) | score
    node.TOPK_BY = "pair"  # PRE_NMS_TOP_N counts: pair (location and class) | location
    node.NMS_TYPE = "class"  # NMS: class (greedy per class) | fast (all at once per class)
    node.NMS_COORDINATES = "network"  # IoUs are computed in pixels of the: network input | original
    node.FAST_NMS_TOP_K = 200  # candidates per class that Fast NMS looks at
    node.MASK_TH = 0.4  # probability above which a pixel belongs to the object
    node.MASK_RESIZE = "legacy"  # planes to the image: legacy | legacy_axes (both as published) | exact
    node.RESCORING = False  # SipMask++: the score of a mask is the score times a predicted mask IoU
    return node


def _fbnet() -> CfgNode:
    node = CfgNode()  # mobile backbone; the keys are read from published files, the model is not provided
    node.ARCH = "default"  # name of an architecture
    node.ARCH_DEF = ""  # architecture given as text
    node.BN_TYPE = "bn"  # normalisation
    node.SCALE_FACTOR = 1.0  # factor of all widths
    node.WIDTH_DIVISOR = 1  # widths are multiples of this
    node.DW_CONV_SKIP_BN = True  # no normalisation behind depthwise convolutions
    node.DW_CONV_SKIP_RELU = True  # no ReLU behind depthwise convolutions
    node.DET_HEAD_LAST_SCALE = 1.0  # box head: factor of the last width
    node.DET_HEAD_BLOCKS = []  # box head: blocks
    node.DET_HEAD_STRIDE = 0  # box head: stride, 0 = default
    node.KPTS_HEAD_LAST_SCALE = 0.0  # keypoint head: factor of the last width
    node.KPTS_HEAD_BLOCKS = []  # keypoint head: blocks
    node.KPTS_HEAD_STRIDE = 0  # keypoint head: stride, 0 = default
    node.MASK_HEAD_LAST_SCALE = 0.0  # mask head: factor of the last width
    node.MASK_HEAD_BLOCKS = []  # mask head: blocks
    node.MASK_HEAD_STRIDE = 0  # mask head: stride, 0 = default
    node.RPN_HEAD_BLOCKS = 0  # RPN: number of blocks
    node.RPN_BN_TYPE = ""  # RPN: normalisation
    return node


def _input() -> CfgNode:
    node = CfgNode()
    node.MIN_SIZE_TRAIN = (800,)  # short side in pixels; one of them is sampled per image
    node.MAX_SIZE_TRAIN = 1333  # cap of the long side
    node.MIN_SIZE_TEST = 800  # short side when testing
    node.MAX_SIZE_TEST = 1333  # cap of the long side when testing
    node.PIXEL_MEAN = [102.9801, 115.9465, 122.7717]  # in the channel order that the network sees (BGR)
    node.PIXEL_STD = [1.0, 1.0, 1.0]  # divides after PIXEL_MEAN is subtracted
    node.TO_BGR255 = True  # RGB in 0..1 becomes BGR in 0..255 before mean and std
    node.BRIGHTNESS = 0.0  # strength of the colour jitter in training
    node.CONTRAST = 0.0  # strength of the colour jitter in training
    node.SATURATION = 0.0  # strength of the colour jitter in training
    node.HUE = 0.0  # strength of the colour jitter in training
    node.HORIZONTAL_FLIP_PROB_TRAIN = 0.5  # probability of a left-right flip in training
    node.VERTICAL_FLIP_PROB_TRAIN = 0.0  # probability of an upside-down flip in training
    node.MIN_SIZE_RANGE_TRAIN = (
        -1,
        -1,
    )  # short side sampled from this range (both ends); -1 = MIN_SIZE_TRAIN
    node.FIXED_SIZE_TRAIN = (0, 0)  # (width, height) whatever the aspect ratio was; 0 = MIN_SIZE_TRAIN
    node.FIXED_SIZE_TEST = (0, 0)  # the same, testing
    # One-channel images of more than 8 bits: values that become black and white, e.g. (0, 4095), linear
    # between and clipped outside; () = the range of their type (16 bits: value >> 8; float: 0 to 1).
    node.DEPTH_RANGE = ()
    # Images with records whose EXIF orientation is 2 to 8: refuse | apply (boxes belong to the image as
    # shown) | ignore (boxes belong to the stored pixels). tools/predict.py always shows images upright.
    node.EXIF = "refuse"
    node.MAX_PIXELS = 178956970  # larger images are refused before they are decoded
    node.INTERPOLATION = "pillow"  # resizing: pillow (area-weighted) | opencv (mmdetection files)
    node.SSD_AUG = CfgNode()  # training: colours, expansion, crop (Liu et al. 2016), then FIXED_SIZE_TRAIN
    node.SSD_AUG.ENABLED = False  # before resizing and flips
    node.SSD_AUG.BRIGHTNESS_DELTA = 32.0  # largest change of brightness, of 255
    node.SSD_AUG.CONTRAST_RANGE = (0.5, 1.5)  # factors
    node.SSD_AUG.SATURATION_RANGE = (0.5, 1.5)  # factors
    node.SSD_AUG.HUE_DELTA = 18.0  # degrees
    node.SSD_AUG.EXPAND_RANGE = (1.0, 4.0)  # sides of the canvas against the image's, with probability 0.5
    node.SSD_AUG.CROP_MIN_IOUS = (
        0.1,
        0.3,
        0.5,
        0.7,
        0.9,
    )  # minimum IoU of the crop with every box; one is sampled per image
    node.SSD_AUG.CROP_MIN_SIDE = 0.3  # minimum side of the crop against the image's
    return node


def _datasets() -> CfgNode:
    node = CfgNode()
    node.TRAIN = ()  # data sets to train on, joined; names, or kind:annotations.json@image_folder
    node.TEST = ()  # data sets to test on, one by one
    # LST without the scheduler: JSON list of category ids by label (lvis_sorted_id_*.json); the first
    # MODEL.ROI_BOX_HEAD.NUM_CLASSES - 1 of them are the classes. "" = in the order of the annotation file.
    node.SORTED_IDS = ""
    # Data sets of the user, NAME: {KIND: coco|lvis|voc|cityscapes|cityscapes_poly|cityscapes_mask,
    # ANN_FILE: path, IMG_DIR: path, CLASSES: [class names in order, KIND voc only]}.
    node.REGISTER = CfgNode(new_allowed=True)
    return node


def _dataloader() -> CfgNode:
    node = CfgNode()
    node.NUM_WORKERS = 4  # processes that read images; 0 = none
    node.SIZE_DIVISIBILITY = 0  # batch sides are padded to a multiple; 32 with FPN, 0 = no padding
    node.ASPECT_RATIO_GROUPING = True  # SAMPLER shuffle: a batch is all landscape or all portrait
    node.SAMPLER = "shuffle"  # order of ordinary training: shuffle | class_aware | repeat_factor
    node.REPEAT_THRESHOLD = (
        0.001  # repeat_factor: classes in a smaller fraction of the images come more often
    )
    node.BAD_IMAGE = "error"  # image that cannot be read: error | skip (another one instead)
    return node


def _solver() -> CfgNode:
    node = CfgNode()
    node.OPTIMIZER = "SGD"  # SGD | ADAMW
    node.MAX_ITER = 40000  # iterations of the run
    node.BASE_LR = 0.001  # learning rate for IMS_PER_BATCH images
    node.BIAS_LR_FACTOR = 2.0  # factor of the rate for biases
    node.MOMENTUM = 0.9  # of SGD
    node.WEIGHT_DECAY = 0.0005  # of weights
    node.WEIGHT_DECAY_BIAS = 0.0  # of biases
    node.DCONV_OFFSETS_LR_FACTOR = 1.0  # factor of the rate for what predicts deformable offsets
    node.LR_SCHEDULER = "step"  # step | cosine
    node.GAMMA = 0.1  # factor of the rate at every step
    node.STEPS = (30000,)  # iterations at which the rate drops
    node.WARMUP_FACTOR = 1.0 / 3  # fraction of the rate at the first iteration
    node.WARMUP_ITERS = 500  # iterations until the full rate
    node.WARMUP_METHOD = "linear"  # linear | constant
    node.CHECKPOINT_PERIOD = 2500  # iterations between two checkpoints
    node.KEEP_CHECKPOINTS = 2  # periodic checkpoints kept; 0 = all
    node.TEST_PERIOD = 0  # iterations between two evaluations while training; 0 = none
    node.LOG_PERIOD = 20  # iterations between two log lines
    node.IMS_PER_BATCH = 16  # images per iteration over all processes
    node.ACCUMULATION_STEPS = 1  # iterations whose gradients are added up before an update
    node.USE_CAS = False  # published name of DATALOADER.SAMPLER class_aware
    node.CLIP_GRADIENTS = CfgNode()
    node.CLIP_GRADIENTS.ENABLED = False  # limit the gradients before an update
    node.CLIP_GRADIENTS.TYPE = "norm"  # norm (of all gradients together) | value (of each element)
    node.CLIP_GRADIENTS.VALUE = 35.0  # the limit
    return node


def _test() -> CfgNode:
    node = CfgNode()
    node.EXPECTED_RESULTS = []  # checks [task, metric, [mean, std]] of the final result
    node.EXPECTED_RESULTS_SIGMA_TOL = 4  # allowed distance from the mean in std
    node.IMS_PER_BATCH = 8  # images per step over all processes
    node.DETECTIONS_PER_IMG = 100  # detections kept by one-stage heads (box head: MODEL.ROI_HEADS)
    # Std of the keypoints in the OKS measure, one per keypoint; () = those of COCO persons (17).
    node.KEYPOINT_OKS_SIGMAS = ()
    node.LVIS_PROTOCOL = "standard"  # standard (300 best per image) | fixed (AP-fixed: best of every class)
    node.FIXED_DETS_PER_CLASS = 10000  # detections of a class that LVIS_PROTOCOL fixed counts over all images
    node.VOC_METRIC = "11point"  # AP of Pascal VOC: 11point (VOC2007, published numbers) | area (VOC2012)
    node.BBOX_AUG = CfgNode()
    node.BBOX_AUG.ENABLED = False  # test-time augmentation
    node.BBOX_AUG.H_FLIP = False  # also the flipped image
    node.BBOX_AUG.SCALES = ()  # further short sides
    node.BBOX_AUG.MAX_SIZE = 4000  # cap of the long side for SCALES
    node.BBOX_AUG.SCALE_H_FLIP = False  # also flipped at the further scales
    return node


def _lst() -> CfgNode:
    node = CfgNode()
    node.ENABLED = False  # train in phases: base classes first, then steps of new classes
    node.BASE_SIZE = 270  # classes of the base phase
    node.STEP_SIZE = 160  # classes per step; or the sizes of all steps, e.g. (160, 160, 80)
    node.SORT_BY = "instance_count"  # order of the classes: instance_count | image_count | file
    node.SORTED_IDS = ""  # JSON list of category ids in the order of training; "" = made by SORT_BY
    node.ANN_TRAIN = ""  # training annotations, LVIS or COCO format
    node.ANN_VAL = ""  # validation annotations
    node.IMG_TRAIN = ""  # folder of the training images
    node.IMG_VAL = ""  # folder of the validation images
    node.PHASE = -1  # set by the scheduler in the derived configurations: 0 base, i step i
    node.RUN_DIR = ""  # folder of the whole run; "" = OUTPUT_DIR
    node.PHASES = ()  # phases to run, e.g. (0, 1); () = all
    node.BASE_RUN = ""  # folder of another run whose finished base phase is reused; "" = trained here
    node.REFERENCE_RUN = ""  # finished run of the same classes (joint training): reports state intransigence
    node.REPORT_SIZES = ()  # sizes of the class groups in reports, e.g. (270, 160, 160); () = the phases
    node.SEED = 0  # of the replay plan and of the weights of new classes
    node.VAL_IMAGES = "all"  # validation images: all | positive (parity: as released)
    node.FREEZE_BASE = 2  # MODEL.BACKBONE.FREEZE_CONV_BODY_AT in the base phase
    node.FREEZE_STEP = 5  # MODEL.BACKBONE.FREEZE_CONV_BODY_AT in the steps
    node.SOLVER_BASE = CfgNode(new_allowed=True)  # SOLVER keys of the base phase
    node.SOLVER_STEP = CfgNode(new_allowed=True)  # SOLVER keys of the steps
    node.STEP_MILESTONES = (
        5.0 / 12,
        7.0 / 12,
    )  # drops of the rate in a step without STEPS, as fractions of MAX_ITER
    node.SCORE_THRESH_STEP = 0.0  # MODEL.ROI_HEADS.SCORE_THRESH in the steps
    node.ROI_BATCH_STEP = 200  # MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE in the steps
    # Further keys of single phases, PHASE: [KEY, VALUE, ...], e.g. {"3": ["SOLVER.BASE_LR", 0.002]}.
    node.PHASE_OVERRIDES = CfgNode(new_allowed=True)

    node.REPLAY = CfgNode()
    node.REPLAY.ENABLED = True  # images of old classes are replayed in the steps
    node.REPLAY.MODE = "online"  # online (planned from SEED) | file (published JSON files)
    node.REPLAY.EPOCHS = 12  # balanced epochs of a step; gives its MAX_ITER when SOLVER_STEP does not
    node.REPLAY.MIN_PER_CLASS = 1  # minimum number of samples of a class per epoch
    node.REPLAY.FILE_IMAGES = ""  # published plan: image indices, for MODE file
    node.REPLAY.FILE_CLASSES = ""  # published plan: class labels, for MODE file
    node.REPLAY.FALLBACK_POSITIVES = 10  # random proposals taken when none belongs to the sampled class

    node.DISTILL = CfgNode()
    node.DISTILL.ENABLED = True  # hold the old classes' cosines on new boxes near those of the previous phase
    node.DISTILL.MODE = "file"  # file (stored before the step) | online (by the teacher, in every view)
    node.DISTILL.WEIGHT = 1.0  # factor of loss_distill
    node.DISTILL.FLIPS = (0, 1)  # views that are stored: 0 plain, 1 flipped
    node.DISTILL.DTYPE = "float32"  # stored values: float32 | float16
    node.DISTILL.FILE = ""  # published JSON file of one step to import; "" = made by the stage dump

    node.GROW = CfgNode()
    node.GROW.CLS_STD = 0.01  # std of new class weights
    node.GROW.REG_STD = 0.001  # std of new box regression weights
    node.GROW.INIT = "normal"  # new class weights: normal | feature_mean | meta
    node.GROW.BOXES_PER_CLASS = 20  # feature_mean, meta: maximum number of training boxes read per class
    node.GROW.META = CfgNode()  # INIT meta: how the weight generator is trained on the old classes
    node.GROW.META.EPISODES = 500  # updates
    node.GROW.META.CLASSES = 5  # old classes that an episode treats as new; at most half of them
    node.GROW.META.SHOTS = 5  # maximum number of boxes per class
    node.GROW.META.LR = 0.003  # learning rate (Adam)
    return node
