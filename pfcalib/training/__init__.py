"""Batches, networks, trees and their training: features and samples in, trained models out.

stream: ClusterStream, MixedStream (batches of any number of files); fit: fit_model, TrainConfig;
networks: NetworkConfig, fit_network, open_stream, score_network, network_energy, export_network;
trees: fit_trees, BoostedTrees; regressors: fit_regressor, fit_energy_trees, read_clusters;
settings: regression_config, classifier_config, read_tuned; tuning: tune_network, importances;
friend: open_model, write_friend; shares: fit_shares (networks that subtract tracks);
cloudfit: CloudData, fit_cloud, apply_cloud, export_athena (networks on clouds of points);
elementfit: collect_elements, fit_elements (one network for particle flow);
subtraction: SubtractionConfig, cached_tables, cached_shares; pruning: fit_pruned (zeros for good);
distillation: fit_student (a small network on the answers of a large one).
"""
