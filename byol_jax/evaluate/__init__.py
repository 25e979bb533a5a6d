"""What a frozen encoder is worth: k-NN, linear classifiers, few labels, similarity and retrieval of texts, signs of collapse.

Nothing here trains the encoder. Some functions stand here under the name of their module (``features``, ``knn``, ``linear``, ``sgd``,
``collapse``, ``compared``, ``embed``, ``embedded``, ``retrieve``, ``robust``, ``similarity``): import a module's other names from its
full path.
"""

from byol_jax.evaluate.baselines import raw_features
from byol_jax.evaluate.collapse import CollapseResult, collapse, collapse_features
from byol_jax.evaluate.compared import Compared, compared
from byol_jax.evaluate.embed import embed
from byol_jax.evaluate.embedded import Embed, embedded
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, pixels
from byol_jax.evaluate.fewlabels import FewLabelsResult, few_labels
from byol_jax.evaluate.grid import FineTuneResult, fine_tune
from byol_jax.evaluate.knn import KnnResult, knn, knn_features, nearest
from byol_jax.evaluate.linear import LinearResult, linear, linear_classifier, linear_features
from byol_jax.evaluate.probe import Probe, load_probe, save_probe
from byol_jax.evaluate.result import Result, save
from byol_jax.evaluate.retrieve import RetrieveResult, retrieve
from byol_jax.evaluate.robust import RobustResult, robust
from byol_jax.evaluate.sentences import SentenceEncoder
from byol_jax.evaluate.sgd import sgd, sgd_features
from byol_jax.evaluate.similarity import SimilarityResult, similarity, similarity_rows
from byol_jax.evaluate.tfidf import TfIdf
from byol_jax.evaluate.threshold import ThresholdResult, at_threshold, calibrated
from byol_jax.evaluate.transfer import TransferResult, transfer
from byol_jax.evaluate.transfer_finetune import transfer_fine_tune
from byol_jax.evaluate.whitening import Whitened, with_whitened

__all__ = [
    "CollapseResult",
    "Compared",
    "Embed",
    "Encoder",
    "Features",
    "FewLabelsResult",
    "FineTuneResult",
    "KnnResult",
    "LinearResult",
    "Probe",
    "Result",
    "RetrieveResult",
    "RobustResult",
    "SentenceEncoder",
    "SimilarityResult",
    "TfIdf",
    "ThresholdResult",
    "TransferResult",
    "Whitened",
    "at_threshold",
    "calibrated",
    "collapse",
    "collapse_features",
    "compared",
    "embed",
    "embedded",
    "features",
    "few_labels",
    "fine_tune",
    "knn",
    "knn_features",
    "linear",
    "linear_classifier",
    "linear_features",
    "load_probe",
    "nearest",
    "pixels",
    "raw_features",
    "retrieve",
    "robust",
    "save",
    "save_probe",
    "sgd",
    "sgd_features",
    "similarity",
    "similarity_rows",
    "transfer",
    "transfer_fine_tune",
    "with_whitened",
]
