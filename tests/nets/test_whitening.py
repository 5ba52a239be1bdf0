import torch

from convscope.nets import Whitening, build_net


def test_patches_are_whitened() -> None:
    """Of the images that it was fitted to, the responses have the unit matrix of second moments, but for epsilon."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(3, 3, generator=generator)
    images = torch.einsum("nchw,dc->ndhw", torch.randn(600, 3, 7, 6, generator=generator), mixed) + 0.3
    layer = Whitening(3, 2)
    assert not layer.fitted
    layer.fit(images)
    assert layer.fitted
    with torch.no_grad():
        responses = layer(images)
    half = responses.shape[1] // 2
    torch.testing.assert_close(responses[:, :half], -responses[:, half:])
    values = responses[:, :half].transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(values @ values.T / values.shape[1], torch.eye(half).double(), atol=0.02, rtol=0)


def test_filters_are_eigenvectors_over_deviations() -> None:
    """As by NumPy over patches cut out one by one, in doubles."""
    images = torch.rand(20, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    layer = Whitening(1, 2)
    layer.fit(images)
    patches = torch.stack(
        [
            image[0, row : row + 2, column : column + 2].flatten()
            for image in images
            for row in range(4)
            for column in range(4)
        ]
    ).double()
    moments = (patches.T @ patches / len(patches)).numpy()
    for filter_ in layer.weight[:4].flatten(1).double().numpy():
        direction = filter_ / (filter_ @ filter_) ** 0.5
        variance = direction @ moments @ direction
        assert abs(moments @ direction - variance * direction).max() < 1e-5
        assert abs((filter_ @ filter_) - 1 / (variance + 5e-4)) < 1e-3 / (variance + 5e-4)


def test_dirac_passes_the_inputs_on() -> None:
    net = build_net("c4o c6og2l", classes=2, channels=3, image_size=5, init="dirac")
    images = torch.rand(1, 3, 5, 5)
    torch.testing.assert_close(net.conv1(images)[:, :3], images)
    assert net.conv1.weight[3].count_nonzero() == 27
    maps = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(net.conv2(maps)[:, [0, 1, 3, 4]], maps)
