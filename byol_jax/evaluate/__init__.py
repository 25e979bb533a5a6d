"""What a frozen encoder is worth: k-NN, linear classifiers, few labels, signs of collapse. Nothing here trains the encoder.

The functions ``features`` and ``knn`` stand here under the names of their modules: import a module's other names from its full path.
"""

from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, pixels
from byol_jax.evaluate.knn import KnnResult, knn, knn_features, nearest
from byol_jax.evaluate.result import Result, save

__all__ = ["Encoder", "Features", "KnnResult", "Result", "features", "knn", "knn_features", "nearest", "pixels", "save"]
