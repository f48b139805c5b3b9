//! holdfast-kube
