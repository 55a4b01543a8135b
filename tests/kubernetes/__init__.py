"""A real Kubernetes of one node for the tests, shared by all test processes of a checkout.

    programs      the programs of Kubernetes and CoreDNS, made once a machine from the Go module proxy
    credentials   the authorities, certificates and kubeconfigs of one life of the node
    configuration how each program is started
    node          the daemon: namespaces of the kernel, a link to them, and what is left when they are gone
    inside        process 1 in those namespaces: starts the programs and says when the node is ready
    volumes       a provisioner: folders for the claims of pods
    openshift     what OpenShift's admission would do to pods
    fixtures      what a test takes

The node has namespaces of its own for processes, mounts and the network. They are gone with its process 1, however
that ends, and with them pods, mounts, bridges and firewall rules: the machine itself gets none of them.
"""
