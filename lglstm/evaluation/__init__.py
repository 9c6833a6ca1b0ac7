"""From a trained net to numbers and pictures: prediction, metrics, the paper's tables, report."""
