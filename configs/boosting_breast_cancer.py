"""scikit-learn's 569 tumours, boosted in seconds."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The HyperSimplex loss over the whole training set, k = the positives."""
    config = ml_collections.ConfigDict()
    config.booster = "lightgbm"  # or xgboost
    config.dataset = "breast_cancer"  # or flights, diamonds, ...: a wrong name lists them all
    config.data = ""  # a libsvm file, instead of the dataset
    config.train_examples = 0  # how many of the training rows to train on; 0 for all of them
    config.loss = "hypersimplex"  # or fenchel_young, logistic (the library's own), centred_squared_error
    config.budget = ""  # as many as there are positives, or a share of the training rows; of ours
    config.hessian = "unit"  # or gauss_newton; of hypersimplex and fenchel_young
    config.learning_rate = 0.1  # by which each tree counts; the lower, the more rounds
    config.rounds = 100  # how many trees, for each score of a row
    config.fixed_rounds = 50  # the paper's; results are compared here, and where the validation AUC is highest
    config.evaluate_every = 10  # rounds between evaluations
    config.checkpoint_every = 20  # rounds between checkpoints; 0 for none
    config.seed = 0  # of the split into training, validation and test rows
    return config
