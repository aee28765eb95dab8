"""The laboratory: grids of trainings that are run within a budget, resumed, and reported with honest fits."""
