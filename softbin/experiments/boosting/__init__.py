"""Gradient boosting with LightGBM and XGBoost: our objectives beside the built-in ones, on tables of real data."""
