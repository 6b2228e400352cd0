"""Where each data set comes from: files, published checksums, classes, licences."""

from __future__ import annotations

from deqcert.data.cifar import BINARY_ARCHIVE, CifarSource
from deqcert.data.digits import DigitsSource
from deqcert.data.files import Remote
from deqcert.data.idx import Checksums, IdxSource
from deqcert.data.imagenet import FolderSource
from deqcert.data.source import ArraySource, Source

DIGIT_NAMES = tuple("0123456789")

# Checksums: of the gzip files as published, and of their content.
MNIST = IdxSource(
    name="mnist",
    subfolders=("mnist", "MNIST/raw"),
    checksums={
        "train-images-idx3-ubyte": Checksums(
            gz="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            content="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train-labels-idx1-ubyte": Checksums(
            gz="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            content="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "t10k-images-idx3-ubyte": Checksums(
            gz="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            content="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        "t10k-labels-idx1-ubyte": Checksums(
            gz="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            content="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    },
    urls=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    subfolders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    checksums={
        "train-images-idx3-ubyte": Checksums(
            gz="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            content="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        "train-labels-idx1-ubyte": Checksums(
            gz="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            content="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "t10k-images-idx3-ubyte": Checksums(
            gz="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            content="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        "t10k-labels-idx1-ubyte": Checksums(
            gz="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            content="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
    # The checksum makes the plain-http server of the authors safe to use.
    urls=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
)

CIFAR10 = CifarSource(
    name="cifar10",
    batches={
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    },
    checksums={
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    archive=Remote(
        name=BINARY_ARCHIVE,
        known_hash="md5:c32a1d4ab5d03f1284b67883e8d87530",
        urls=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
    ),
)

_ALL = (
    ArraySource(
        name="digits",
        read=DigitsSource(),
        levels=16,
        class_names=DIGIT_NAMES,
        input_shape=(1, 8, 8),
        sizes={"train": 1400, "test": 397},
        digests={
            "train": "59d621cf376c65fd15a4fba409a9da9452f4166d7c22e1f1d7309ef6041262b8",
            "test": "d50628371633ae8c60831ac0ecfb34873e2dd55cc7c1485d3a192d1901bc21a6",
        },
        licence="CC BY 4.0; Alpaydin and Kaynak 1998, UCI Machine Learning Repository",
    ),
    ArraySource(
        name="mnist",
        read=MNIST,
        levels=255,
        class_names=DIGIT_NAMES,
        input_shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        digests={
            "train": "83dbfd4ffd92f6180a63876627ce95d1338dac1a730f7206d86684c309fb2457",
            "test": "06bd602df9b07a0f4feac279bd6417bf6effe4d472f27c1673182d61d9fd173e",
        },
        licence="CC BY-SA 3.0; LeCun, Cortes and Burges",
        download="12 MB",
    ),
    ArraySource(
        name="fashion-mnist",
        read=FASHION_MNIST,
        levels=255,
        class_names=(
            *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        input_shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        digests={
            "train": "1fac23a73f60835f0cd134595f8a213477e3553e868968f9b47fe0bbe1469b79",
            "test": "c316c83c422ce50856e7a71e67c6471c942bfb612edd3285a1843b7b2aab6f72",
        },
        licence="MIT; Xiao, Rasul and Vollgraf 2017, Zalando SE",
        download="31 MB",
    ),
    ArraySource(
        name="cifar10",
        read=CIFAR10,
        levels=255,
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        input_shape=(3, 32, 32),
        sizes={"train": 50_000, "test": 10_000},
        digests={
            "train": "539030c9ee31f8da9da42a922db9d4e69325f8cb8df8f61453ed1af3449263fc",
            "test": "8c3eb161d3825b92d9e76c62b82875fdfd1de296c35e30ea0ea51a7843d3b52c",
        },
        licence="research use, cite the report; Krizhevsky 2009",
        download="170 MB",
    ),
    FolderSource(
        name="imagenet",
        places=("imagenet", "ILSVRC2012"),
        sizes={"train": 1_281_167, "test": 50_000},
        licence="research use, ImageNet terms of access; Russakovsky et al. 2015",
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
